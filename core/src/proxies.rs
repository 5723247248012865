//! Whom to believe about where a call came from, and how.
//!
//! Whoever calls can write any header, so what a proxy says of a caller counts only where it is a proxy that was configured: the
//! address is the last one in `x-forwarded-for` that is no such proxy's, since each of them adds the one it was called from.

use std::net::IpAddr;

use http::HeaderMap;

use crate::call::Call;

/// The proxies that are believed.
#[derive(Debug, Default)]
pub struct Proxies(pub Vec<Network>);

/// Addresses that begin with the same bits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Network {
    base: u128,
    bits: u32,
}

impl Proxies {
    /// Makes of `call` what it was before proxies that are believed.
    pub(crate) fn look_behind(&self, call: &mut Call) {
        let Some(peer) = call.peer.filter(|peer| self.has(*peer)) else {
            return;
        };
        call.peer = Some(self.caller(peer, &call.headers));
        match last(&call.headers, "x-forwarded-proto").next() {
            Some("https") => "https".clone_into(&mut call.scheme),
            Some("http") => "http".clone_into(&mut call.scheme),
            _ => {}
        }
    }

    /// The nearest who is no proxy; the farthest proxy, if nobody stands behind it.
    fn caller(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut nearest = peer;
        for said in last(headers, "x-forwarded-for") {
            // Behind what is no address nothing can be believed either.
            let Some(address) = address(said) else { break };
            nearest = address;
            if !self.has(address) {
                break;
            }
        }
        nearest
    }

    fn has(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.has(address))
    }
}

impl Network {
    /// Reads `10.0.0.0/8`, `2001:db8::/32`, or one address.
    pub fn read(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u32>().ok()?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(most);
        let network = Self {
            base: number(address),
            bits: bits.checked_add(128 - most)?,
        };
        // What has more bits than its prefix is a slip, and it cannot be told of what.
        let fits = bits <= most && network.base & !network.mask() == 0;
        fits.then_some(network)
    }

    fn has(self, address: IpAddr) -> bool {
        number(address) & self.mask() == self.base
    }

    fn mask(self) -> u128 {
        u128::MAX
            .checked_shl(128_u32.saturating_sub(self.bits))
            .unwrap_or(0)
    }
}

/// An address as one of version 6.
fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// An address as proxies write it, some of them with a port.
fn address(text: &str) -> Option<IpAddr> {
    let bare = match text.strip_prefix('[') {
        Some(text) => text.split(']').next()?,
        // More colons than one are an address of version 6.
        None if text.matches(':').count() == 1 => text.split(':').next()?,
        None => text,
    };
    bare.parse()
        .ok()
        .map(|address: IpAddr| address.to_canonical())
}

/// What stands in the list `name`, the last first.
fn last<'a>(headers: &'a HeaderMap, name: &'static str) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).iter().rev();
    // What cannot be read is no address, and ends the search.
    let lists = values.map(|value| value.to_str().unwrap_or_default());
    lists.flat_map(|list| list.rsplit(',').map(str::trim))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look_behind(peer: &str, headers: &[(&'static str, &'static str)]) -> (String, String) {
        let proxies = ["10.0.0.0/8", "192.0.2.1", "2001:db8::/32"];
        let proxies = proxies.map(|text| Network::read(text).unwrap());
        let mut request = http::Request::get("/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let head = request.body(()).unwrap().into_parts().0;
        let mut call = Call::read(head, peer.parse().ok());
        Proxies(proxies.to_vec()).look_behind(&mut call);
        let peer = call.peer.map(|peer| peer.to_string());
        (peer.unwrap_or_default(), call.scheme)
    }

    #[test]
    fn only_a_proxy_that_is_known_is_believed() {
        let forged = [
            ("x-forwarded-for", "6.6.6.6"),
            ("x-forwarded-proto", "https"),
        ];
        for peer in ["203.0.113.9", "11.0.0.1", "192.0.2.2", "2001:db9::1", ""] {
            assert_eq!(look_behind(peer, &forged), (peer.into(), "http".into()));
        }
        for peer in ["10.1.2.3", "192.0.2.1", "2001:db8::7"] {
            let expected = ("6.6.6.6".into(), "https".into());
            assert_eq!(look_behind(peer, &forged), expected, "{peer}");
        }
    }

    #[test]
    fn the_caller_is_the_last_who_is_no_proxy() {
        for (lists, expected) in [
            (&["6.6.6.6, 203.0.113.9"][..], "203.0.113.9"),
            (&["6.6.6.6, 203.0.113.9, 10.0.0.7"], "203.0.113.9"),
            (
                &["6.6.6.6", "203.0.113.9", "10.0.0.7,10.0.0.8"],
                "203.0.113.9",
            ),
            (&["10.0.0.7, 10.0.0.8"], "10.0.0.7"),
            (&[""], "10.0.0.1"),
            (&[], "10.0.0.1"),
            (&["6.6.6.6, unknown"], "10.0.0.1"),
            (&["6.6.6.6, unknown, 10.0.0.9"], "10.0.0.9"),
            (&["203.0.113.9:4711"], "203.0.113.9"),
            (&["[2001:db9::1]:4711"], "2001:db9::1"),
            (&["[2001:db9::1]"], "2001:db9::1"),
            (&["6.6.6.6, ::ffff:203.0.113.9"], "203.0.113.9"),
            (&["6.6.6.6, ::ffff:10.0.0.9"], "6.6.6.6"),
        ] {
            let headers: Vec<_> = lists
                .iter()
                .map(|list| ("x-forwarded-for", *list))
                .collect();
            assert_eq!(look_behind("10.0.0.1", &headers).0, expected, "{lists:?}");
        }
    }

    #[test]
    fn a_scheme_is_one_that_there_is() {
        for (said, expected) in [
            ("https", "https"),
            ("http, https", "https"),
            ("https, http", "http"),
            ("javascript", "http"),
            ("", "http"),
        ] {
            let headers = [("x-forwarded-proto", said)];
            assert_eq!(look_behind("10.0.0.1", &headers).1, expected, "{said}");
        }
    }

    #[test]
    fn a_network_is_written_one_way() {
        for text in [
            "10.0.0.0/8",
            "0.0.0.0/0",
            "::/0",
            "::1",
            "127.0.0.1",
            "127.0.0.1/32",
            "::1/128",
        ] {
            assert!(Network::read(text).is_some(), "{text}");
        }
        for text in [
            "",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/",
            "10.0.0.0/-1",
            "host",
            "10/8",
            "2001:db8::1/32",
        ] {
            assert_eq!(Network::read(text), None, "{text}");
        }
        // All of version 4 is not all of version 6.
        let all = Network::read("0.0.0.0/0").unwrap();
        assert!(all.has([1, 2, 3, 4].into()) && !all.has("2001:db8::1".parse().unwrap()));
    }
}
