cd context; T="tar --mtime=@0 --sort=name --owner=5 --group=6"
$T --format=v7 -cf v7.tar dir; $T --format=posix -cf pax.tar dir
