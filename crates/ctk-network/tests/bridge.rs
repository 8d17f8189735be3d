//! Containers on bridges: who reaches whom, as whom.

mod common;

use common::*;

#[test]
fn neighbours_and_the_world_are_reached_and_nothing_is_left() {
    let Some(lab) = lab() else { return };
    let before = lab.state();
    let (one, two) = (lab.attach("one", &["ctk"], &[]), lab.attach("two", &["ctk"], &[]));
    one.serve(7000);
    within(&lab.world, || serve(7001));
    let address = one.address(0, false);
    assert_eq!(address.to_string(), "10.88.0.2");
    assert_eq!(within(&two.namespace, || ask_tcp(address, 7000)), "10.88.0.3");
    assert_eq!(within(&two.namespace, || ask_udp(address, 7000)), "10.88.0.3");
    // The host reaches it without a published port; to the world, it is the host.
    assert_eq!(ask_tcp(address, 7000), "10.88.0.1");
    assert_eq!(within(&two.namespace, || ask_tcp(ip_of("192.0.2.2"), 7001)), "192.0.2.1");
    assert_eq!(within(&two.namespace, || ask_udp(ip_of("192.0.2.2"), 7001)), "192.0.2.1");
    // The world does not reach it, though it knows the way.
    within(&lab.world, || ip("route add 10.88.0.0/16 via 192.0.2.1"));
    assert_eq!(within(&lab.world, || ask_tcp(address, 7000)), "TimedOut");
    lab.networks.detach(&one.id).unwrap();
    lab.networks.detach(&two.id).unwrap();
    assert_eq!(lab.state(), before);
}
