setfattr -n user.one -v 1 context/a.txt; setfattr -n user.two -v 2 context/dir/one.txt; setfattr -n user.three -v 3 context/dir/sub
