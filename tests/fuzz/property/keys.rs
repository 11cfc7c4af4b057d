//! Keys that are the same in every run, from fixed seeds: for tests only, they protect nothing.

use fim::sign::key::SecretKey;
use ssh_key::private::{Ed25519Keypair, KeypairData};
use ssh_key::{LineEnding, PrivateKey};

/// Whose key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    Site,
    Local,
    NextSite,
    NextLocal,
    Stranger,
    StrangerLocal,
}

/// The key of an owner; local ones have the comment that makes them local.
pub fn key(owner: Owner) -> SecretKey {
    let (seed, comment) = match owner {
        Owner::Site => (1, "site@mail1"),
        Owner::Local => (2, "local@mail1"),
        Owner::NextSite => (3, "site@mail1"),
        Owner::NextLocal => (4, "local@mail1"),
        Owner::Stranger => (5, "site@mail1"),
        Owner::StrangerLocal => (6, "local@mail1"),
    };
    let pair = KeypairData::from(Ed25519Keypair::from_seed(&[seed; 32]));
    let pem = PrivateKey::new(pair, comment).and_then(|key| key.to_openssh(LineEnding::LF));
    SecretKey::open(&pem.expect("a fixed seed gives a key"), None).expect("and fim opens it")
}
