cd context; T="tar --mtime=@0 --sort=name --owner=5 --group=6"
touch .wh.a.txt; $T -cf x.tar a.txt .wh.a.txt; rm .wh.a.txt
