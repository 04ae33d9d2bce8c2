use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use super::run;
use crate::net::{TcpStream, ToSocketAddrs, lookup_host};

fn resolve(addrs: impl ToSocketAddrs) -> Vec<SocketAddr> {
    run(async { lookup_host(addrs).await.unwrap().collect() })
}

#[test]
fn addresses_need_no_lookup() {
    let v4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 7);
    let v6 = SocketAddrV6::new(Ipv6Addr::LOCALHOST, 7, 0, 0);
    let both = [SocketAddr::from(v4), SocketAddr::from(v6)];

    assert_eq!(resolve(v4), both[..1]);
    assert_eq!(resolve(both[0]), both[..1]);
    assert_eq!(resolve(v6), both[1..]);
    assert_eq!(resolve((IpAddr::V4(*v4.ip()), 7)), both[..1]);
    assert_eq!(resolve((*v4.ip(), 7)), both[..1]);
    assert_eq!(resolve((*v6.ip(), 7)), both[1..]);
    assert_eq!(resolve(&both[..]), both);
    assert_eq!(resolve("127.0.0.1:7"), both[..1]);
    assert_eq!(resolve("[::1]:7"), both[1..]);
    assert_eq!(resolve(String::from("127.0.0.1:7")), both[..1]);
    assert_eq!(resolve(("::1", 7)), both[1..]);
    assert_eq!(resolve((String::from("127.0.0.1"), 7)), both[..1]);
    fn by_reference<T: ToSocketAddrs + ?Sized>(addrs: &T) -> Vec<SocketAddr> {
        resolve(addrs)
    }
    assert_eq!(by_reference("[::1]:7"), both[1..]);
}

#[test]
fn names_are_looked_up() {
    for addrs in [resolve("localhost:80"), resolve(("localhost", 80))] {
        assert!(!addrs.is_empty());
        assert!(addrs.iter().all(|a| a.ip().is_loopback() && a.port() == 80));
    }
}

#[test]
fn what_cannot_be_resolved_is_an_error() {
    run(async {
        let error = lookup_host("no port here").await.err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(lookup_host(("\0", 80)).await.is_err());

        let none: &[SocketAddr] = &[];
        assert_eq!(lookup_host(none).await.unwrap().count(), 0);
        let error = TcpStream::connect(none).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    });
}
