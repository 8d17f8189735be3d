cp Dockerfile context/Dockerfile.x
