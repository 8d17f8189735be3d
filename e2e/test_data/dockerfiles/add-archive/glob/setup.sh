cd context; T="tar --mtime=@0 --sort=name --owner=5 --group=6"
$T -cf 1.tar dir; $T -cf 2.tar a.txt
