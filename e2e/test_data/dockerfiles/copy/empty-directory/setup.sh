mkdir context/empty context/dir/empty
