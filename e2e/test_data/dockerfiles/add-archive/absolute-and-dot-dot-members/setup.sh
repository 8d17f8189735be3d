cd context; T="tar --mtime=@0 --sort=name --owner=5 --group=6"
$T -P -cf x.tar --transform "s,^a.txt,/abs.txt," a.txt; $T -P -rf x.tar --transform "s,^b.txt,../../up.txt," b.txt
