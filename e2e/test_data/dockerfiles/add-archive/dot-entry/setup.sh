cat > make.py <<'P'
import tarfile,io,sys
def m(t,name,type=tarfile.REGTYPE,data=b"",link="",mode=0o644,uid=0,gid=0,mtime=0,dev=(0,0)):
    i=tarfile.TarInfo(name); i.type=type; i.size=len(data); i.linkname=link; i.mode=mode; i.uid=uid; i.gid=gid; i.mtime=mtime
    i.devmajor,i.devminor=dev
    t.addfile(i, io.BytesIO(data) if data else None)
D,S,H=tarfile.DIRTYPE,tarfile.SYMTYPE,tarfile.LNKTYPE
t=tarfile.open("context/x.tar","w",format=tarfile.GNU_FORMAT)
m(t,".",D,mode=0o700,uid=7,gid=8);m(t,"./f",data=b"1")
t.close()
P
python3 make.py; rm make.py
