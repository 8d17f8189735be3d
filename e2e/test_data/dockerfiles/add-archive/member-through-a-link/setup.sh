cd context; T="tar --mtime=@0 --sort=name --owner=5 --group=6"
ln -s /srv l; $T -cf x.tar l; rm l; mkdir l; echo t > l/t; $T -rf x.tar l/t
