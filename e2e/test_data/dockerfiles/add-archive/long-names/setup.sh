cd context; T="tar --mtime=@0 --sort=name --owner=5 --group=6"
n=$(printf "%0120d" 1); mkdir $n; echo x > $n/$n; $T -cf x.tar $n; rm -r $n
