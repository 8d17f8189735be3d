perl -MIO::Socket::UNIX -e "IO::Socket::UNIX->new(Local => q(context/sock), Listen => 1) or die"
