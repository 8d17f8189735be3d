cd context; T="tar --mtime=@0 --sort=name --owner=5 --group=6"
$T -cjf x.tar.bz2 dir a.txt
