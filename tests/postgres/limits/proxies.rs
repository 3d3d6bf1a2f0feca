//! Whose address counts behind a proxy, and who is believed to be one.

use crate::deployment::Client;
use crate::http::Http;
use crate::limits::Refused;
use crate::limits::knock;
use crate::limits::open;

const ONE_EACH: &str = "limits.connections_per_address=1";

/// A client of the proxy at 127.0.0.9, which says this of it.
async fn forwarded(
    deployment: &crate::deployment::Deployment,
    header: &'static str,
    value: &str,
) -> Result<Client, Refused> {
    knock(deployment, 9, &[(header, value)]).await
}

#[tokio::test]
async fn behind_a_trusted_proxy_the_last_address_that_is_not_its_own_counts() {
    let deployment = open(&[ONE_EACH, "listen.trusted_proxies=127.0.0.9,10.0.0.0/8"]).await;
    let of = |value: &'static str| forwarded(&deployment, "x-forwarded-for", value);
    let _ada = of("203.0.113.7").await.unwrap();
    let _bob = of("203.0.113.8, 10.1.2.3").await.unwrap();
    let _net = of("2001:db8:0:1::1").await.unwrap();
    // The client may write what it likes before what the proxy writes.
    for again in ["1.1.1.1, 203.0.113.7", "203.0.113.9, 203.0.113.8", "2001:db8:0:1::2"] {
        let refusal = of(again).await.unwrap_err();
        assert_eq!((refusal.status, refusal.code.as_str()), (429, "too_many_from_address"));
    }
    // The other header is not read, whatever is in it.
    let _other = forwarded(&deployment, "forwarded", "for=203.0.113.7").await.unwrap();
    // What a proxy asks for itself has no address.
    let _health = knock(&deployment, 9, &[]).await.unwrap();
    let _check = knock(&deployment, 9, &[]).await.unwrap();
}

#[tokio::test]
async fn nobody_else_is_believed() {
    let deployment = open(&[ONE_EACH, "listen.trusted_proxies=127.0.0.9"]).await;
    let _mine = knock(&deployment, 2, &[("x-forwarded-for", "203.0.113.1")]).await.unwrap();
    let again = knock(&deployment, 2, &[("x-forwarded-for", "203.0.113.2")]).await.unwrap_err();
    assert_eq!((again.status, again.code.as_str()), (429, "too_many_from_address"));
}

#[tokio::test]
async fn the_standard_header_is_read_where_the_settings_say_so() {
    let proxy = "listen.trusted_proxies=127.0.0.9";
    let deployment = open(&[ONE_EACH, proxy, "listen.forwarded_header=forwarded"]).await;
    let of = |value: &'static str| forwarded(&deployment, "forwarded", value);
    let _ada = of("for=203.0.113.7;proto=https").await.unwrap();
    let again = of("for=\"1.1.1.1:99\", For=\"203.0.113.7:4711\"").await.unwrap_err();
    assert_eq!(again.status, 429);
}

#[tokio::test]
async fn a_proxy_s_connection_serves_one_client_after_the_other() {
    let rate = "limits.handshakes_per_second_per_address=1";
    let deployment = open(&[rate, "listen.trusted_proxies=127.0.0.1"]).await;
    let mut proxy = Http::connect(deployment.daemon.address()).await;
    let mut ask = async |client: &str| {
        proxy.get("/v1/changes?table=t", &[("x-forwarded-for", client)]).await.status.as_u16()
    };
    for asked in 0.. {
        if ask("203.0.113.7").await == 429 {
            break;
        }
        assert!(asked < 60, "nobody is refused");
    }
    assert_eq!(ask("203.0.113.8").await, 200);
}
