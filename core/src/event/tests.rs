//! Events and batches: the wire form, its limits, and what damaged or forged bytes do.

mod golden;

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::ids::{ClusterId, Epoch, Hash, JobId, LogId, NodeId, Seq};
use crate::limits;
use crate::testing::{Author, cluster, command, grant_no, hlc, job_id, node, signer, tasks};

/// The value at the bottom of `levels` lists.
fn nested(levels: usize) -> Value {
    (0..levels).fold(Value::Bool(true), |inner, _| Value::List(vec![inner]))
}

fn event_with(spec: WorkSpec) -> Event {
    Event {
        hlc: hlc(1),
        ns: "batch".into(),
        kind: "SubmitJob".into(),
        ver: 1,
        ctx: SysContext { job: Some(job_id(1, 1)), ..SysContext::default() },
        spec,
    }
}

/// A batch signed by node 1 whose body `write` makes: for forms that `seal` refuses.
fn signed_by_hand(events: &[Vec<u8>]) -> Vec<u8> {
    let mut e = Encoder::new(Vec::new());
    e.array(7).unwrap().u8(1).unwrap();
    e.bytes(&cluster().0).unwrap().bytes(&node(1).0).unwrap();
    e.u64(1).unwrap().u64(1).unwrap();
    e.bytes(&Hash::ZERO.0).unwrap();
    e.array(events.len() as u64).unwrap();
    for event in events {
        e.bytes(event).unwrap();
    }
    sign_body(e.into_writer())
}

/// Appends node 1's signature, as `SignedBatch` makes it.
fn sign_body(mut body: Vec<u8>) -> Vec<u8> {
    use ed25519_dalek::Signer as _;
    let mut hasher = blake3::Hasher::new_derive_key("starling 2026 batch head v1");
    hasher.update(&body);
    let key = ed25519_dalek::SigningKey::from_bytes(&[1; 32]);
    let signature = key.sign(hasher.finalize().as_bytes());
    body.extend_from_slice(&signature.to_bytes());
    body
}

fn open(bytes: &[u8]) -> Result<SignedBatch, BatchError> {
    SignedBatch::open(bytes, &cluster())
}

#[test]
fn a_batch_opens_to_what_was_sealed() {
    let mut author = Author::new(1);
    let first = author.open("wren");
    let second = author.say(5, 3);
    let opened = open(second.bytes()).unwrap();
    assert_eq!(opened, second);
    assert_eq!(opened.header(), second.header());
    assert_eq!(opened.header().prev, first.head());
    assert_eq!(opened.header().last_seq(), Seq(4));
    assert!(opened.entries().eq(second.entries()));
    assert_eq!(SignedBatch::open_own(second.bytes(), &cluster()), Ok(second));
}

#[test]
fn a_batch_cut_at_any_byte_is_refused() {
    let batch = Author::new(1).open("wren");
    for len in 0..batch.bytes().len() {
        assert!(open(&batch.bytes()[..len]).is_err(), "cut at {len}");
    }
    let longer = [batch.bytes(), &[0]].concat();
    assert!(open(&longer).is_err(), "one byte more");
}

#[test]
fn a_batch_with_any_bit_flipped_is_refused() {
    let batch = Author::new(1).open("wren");
    let mut bytes = batch.bytes().to_vec();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            bytes[at] ^= 1 << bit;
            assert!(open(&bytes).is_err(), "bit {bit} of byte {at}");
            bytes[at] ^= 1 << bit;
        }
    }
    assert!(open(&bytes).is_ok());
}

#[test]
fn a_batch_of_another_cluster_is_refused() {
    let batch = Author::new(1).open("wren");
    let other = ClusterId([9; 32]);
    assert_eq!(SignedBatch::open(batch.bytes(), &other), Err(BatchError::OtherCluster));
    assert_eq!(SignedBatch::open_own(batch.bytes(), &other), Err(BatchError::OtherCluster));
}

#[test]
fn a_batch_under_another_nodes_signature_is_refused() {
    let mine = Author::new(1).open("wren");
    let theirs = Author::new(2).open("wren");
    let (body, _) = mine.bytes().split_last_chunk::<SIGNATURE_BYTES>().unwrap();
    let (_, signature) = theirs.bytes().split_last_chunk::<SIGNATURE_BYTES>().unwrap();
    let forged = [body, signature.as_slice()].concat();
    assert_eq!(open(&forged), Err(BatchError::Signature(node(1))));
}

#[test]
fn an_author_that_is_no_curve_point_is_refused() {
    let bytes = Author::new(1).open("wren").bytes().to_vec();
    // The author's key follows the array head, the version and the cluster.
    let at = bytes.windows(32).position(|window| window == node(1).0).unwrap();
    for key in [[0_u8; 32], [0xff; 32], [1; 32]] {
        let mut forged = bytes.clone();
        forged[at..at + 32].copy_from_slice(&key);
        assert!(open(&forged).is_err());
    }
}

#[test]
fn an_event_over_its_limit_is_refused() {
    let too_large = vec![0; limits::EVENT_BYTES_MAX + 1];
    assert_eq!(open(&signed_by_hand(&[too_large])), Err(BatchError::EventTooLarge(limits::EVENT_BYTES_MAX + 1)));
    let largest = vec![0; limits::EVENT_BYTES_MAX];
    assert!(open(&signed_by_hand(&[largest])).is_ok());
}

#[test]
fn too_many_events_or_none_are_refused() {
    let event = event_with(WorkSpec::new()).to_bytes();
    let over = vec![event.clone(); limits::BATCH_EVENTS_MAX + 1];
    assert_eq!(open(&signed_by_hand(&over)), Err(BatchError::Count(257)));
    assert_eq!(open(&signed_by_hand(&[])), Err(BatchError::Count(0)));
    let most = vec![event; limits::BATCH_EVENTS_MAX];
    assert_eq!(open(&signed_by_hand(&most)).unwrap().header().count, 256);
}

#[test]
fn a_batch_over_its_limit_is_refused_unread() {
    let events = vec![vec![0; 16_000]; 5];
    let bytes = signed_by_hand(&events);
    assert_eq!(open(&bytes), Err(BatchError::TooLarge(bytes.len())));
}

#[test]
fn positions_out_of_range_are_refused() {
    let batch = Author::new(1).open("wren");
    for first_seq in [0, u64::MAX / 2 + 1, u64::MAX] {
        let mut e = Encoder::new(Vec::new());
        e.array(7).unwrap().u8(1).unwrap();
        e.bytes(&cluster().0).unwrap().bytes(&node(1).0).unwrap();
        e.u64(1).unwrap().u64(first_seq).unwrap();
        e.bytes(&Hash::ZERO.0).unwrap().array(1).unwrap();
        e.bytes(&event_with(WorkSpec::new()).to_bytes()).unwrap();
        let bytes = sign_body(e.into_writer());
        assert!(matches!(open(&bytes), Err(BatchError::Malformed(_))), "{first_seq}");
    }
    assert_eq!(batch.header().first_seq, Seq(1));
}

#[test]
fn an_event_nested_too_deeply_is_kept_unread() {
    // The spec itself is the first level.
    let deepest = event_with(WorkSpec::new().with("x", nested(limits::VALUE_DEPTH_MAX - 2)));
    assert_eq!(Event::from_bytes(&deepest.to_bytes()).unwrap(), deepest);
    for levels in [limits::VALUE_DEPTH_MAX - 1, 9, 2_000] {
        let event = event_with(WorkSpec::new().with("x", nested(levels)));
        let bytes = event.to_bytes();
        assert!(Event::from_bytes(&bytes).is_err(), "{levels} levels");
        let batch = open(&signed_by_hand(std::slice::from_ref(&bytes))).unwrap();
        let entries: Vec<&Entry> = batch.entries().map(|(_, entry)| entry).collect();
        assert_eq!(entries, [&Entry::Unread(bytes)]);
    }
}

#[test]
fn events_of_another_form_are_kept_unread() {
    let good = event_with(command()).to_bytes();
    let mut eight_fields = good.clone();
    eight_fields[0] = 0x88;
    let trailing = [good.as_slice(), &[0xf6]].concat();
    // A float, a tag, an indefinite list, a map with a key twice.
    let odd_specs: [&[u8]; 4] = [
        &[0xa1, 0x61, b'x', 0xf9, 0, 0],
        &[0xa1, 0x61, b'x', 0xc1, 0x01],
        &[0xa1, 0x61, b'x', 0x9f, 0xff],
        &[0xa2, 0x61, b'x', 0x01, 0x61, b'x', 0x02],
    ];
    let bare = event_with(WorkSpec::new()).to_bytes();
    let mut all = vec![eight_fields, trailing];
    for spec in odd_specs {
        // The empty spec is the event's last byte.
        all.push([&bare[..bare.len() - 1], spec].concat());
    }
    let batch = open(&signed_by_hand(&all)).unwrap();
    assert!(batch.entries().zip(&all).all(|((_, entry), bytes)| *entry == Entry::Unread(bytes.clone())));
}

#[test]
fn a_signature_counts_in_its_own_context_only() {
    let (signer, bytes) = (signer(1), b"presence".as_slice());
    let signature = signer.sign("a", bytes);
    assert!(verify(&signer.node(), "a", bytes, &signature));
    assert!(!verify(&signer.node(), "b", bytes, &signature));
    assert!(!verify(&signer.node(), "a", b"absence", &signature));
    assert!(!verify(&node(2), "a", bytes, &signature));
}

#[test]
fn a_membership_proof_fits_one_secret_and_one_node() {
    let proof = membership_mac(&[7; 32], &node(1));
    assert_ne!(proof, membership_mac(&[8; 32], &node(1)));
    assert_ne!(proof, membership_mac(&[7; 32], &node(2)));
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        "[a-zé]{0,12}".prop_map(Value::text),
        prop::collection::vec(any::<u8>(), 0..20).prop_map(Value::Bytes),
    ];
    leaf.prop_recursive(5, 20, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::List),
            prop::collection::btree_map("[a-z]{0,30}".prop_map(SmolStr::from), inner, 0..4).prop_map(Value::Map),
        ]
    })
}

fn any_set() -> impl Strategy<Value = IntervalSet> {
    prop::collection::btree_set(any::<u32>(), 0..8).prop_map(|set| set.into_iter().collect())
}

fn any_event() -> impl Strategy<Value = Event> {
    let job = any::<Option<([u8; 32], u64, u64)>>().prop_map(|job| {
        job.map(|(key, epoch, no)| JobId {
            log: LogId { node: NodeId(key), epoch: Epoch(epoch) },
            no: crate::ids::JobNo(no),
        })
    });
    let ctx = (
        job,
        any_set(),
        any::<Option<u32>>(),
        any::<u16>(),
        any::<Option<[u8; 32]>>(),
        any::<(i32, Option<[u8; 32]>)>(),
    )
        .prop_map(|(job, tasks, grant, attempt, node, (priority, schema))| SysContext {
            job,
            tasks,
            grant: grant.map(grant_no),
            attempt,
            node: node.map(NodeId),
            priority,
            schema: schema.map(Hash),
        });
    let spec: BoxedStrategy<BTreeMap<SmolStr, Value>> =
        prop::collection::btree_map("[a-z]{0,8}".prop_map(SmolStr::from), any_value(), 0..5).boxed();
    (any::<(u64, u32, u16)>(), "[a-z]{0,9}", "[A-Z]{0,9}", ctx, spec).prop_map(
        |((wall_ms, count, ver), ns, kind, ctx, spec)| Event {
            hlc: Hlc { wall_ms, count },
            ns: ns.into(),
            kind: kind.into(),
            ver,
            ctx,
            spec: WorkSpec(spec),
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_event_survives_the_wire(event in any_event()) {
        let bytes = event.to_bytes();
        prop_assert_eq!(Event::from_bytes(&bytes).unwrap(), event);
        prop_assert_eq!(golden::reencoded_by_ciborium(&bytes), bytes);
    }

    #[test]
    fn any_bytes_are_an_event_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Event::from_bytes(&bytes);
        let _ = open(&bytes);
        let _ = open(&sign_body(bytes));
    }

    #[test]
    fn a_damaged_event_never_panics(event in any_event(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = event.to_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(read) = Event::from_bytes(&bytes) {
            // Whatever is read has one encoding.
            prop_assert_eq!(Event::from_bytes(&read.to_bytes()).unwrap(), read);
        }
    }
}

#[test]
fn the_empty_range_of_tasks_is_empty() {
    assert!(tasks(2, 1).is_empty());
}
