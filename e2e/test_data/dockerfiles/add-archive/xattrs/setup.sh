cd context; T="tar --mtime=@0 --sort=name --owner=5 --group=6"
setfattr -n user.k -v v a.txt; $T --xattrs -cf x.tar a.txt
