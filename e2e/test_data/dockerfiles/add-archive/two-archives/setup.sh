cd context; T="tar --mtime=@0 --sort=name --owner=5 --group=6"
$T -cf x.tar a.txt; $T -cf z.tar keep
