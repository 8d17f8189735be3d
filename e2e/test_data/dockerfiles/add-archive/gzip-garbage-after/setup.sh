cd context; T="tar --mtime=@0 --sort=name --owner=5 --group=6"
$T -c a.txt | gzip -n > x.tar; echo garbage >> x.tar
