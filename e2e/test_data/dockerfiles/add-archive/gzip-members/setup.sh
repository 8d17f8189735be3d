cd context; T="tar --mtime=@0 --sort=name --owner=5 --group=6"
$T -c a.txt > t; head -c 700 t | gzip -n > x.tar; tail -c +701 t | gzip -n >> x.tar; rm t
