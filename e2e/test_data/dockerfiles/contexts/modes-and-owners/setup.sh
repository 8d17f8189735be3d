chmod 4750 other/f; ln -s f other/l; chown 7:8 other/f
