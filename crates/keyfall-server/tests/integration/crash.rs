//! INVARIANTS 1 and 2 where the process is killed at any moment.

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use keyfall_carrier::MulticastReceiver;
use keyfall_protocol::command::Unverified;
use keyfall_protocol::enrolment::{RequestKey, request_text};
use keyfall_protocol::keys::Secret;
use serde_json::{Value, json};

use crate::served::{Home, Served, ask};

/// Ten servers one after the other in one directory, each killed while orders come in. What was
/// answered is kept, no number is used twice, and the audit log is whole.
#[test]
fn a_killed_server_forgets_nothing_that_it_answered() {
    let home = Home::founded();
    let heard = hear(&home);
    // Sealed to a key, because the code's Argon2 would take most of the time.
    let request = RequestKey::from_seed(Secret::from_slice(&[3; 32]).expect("32 octets"));
    let request = request_text(&request.public());
    let mut names = Vec::new();
    let mut generation = 0;
    for round in 0..10 {
        let mut child = serve_apart(&home.dir);
        let answered = Arc::new(AtomicU64::new(0));
        let enough = Arc::clone(&answered);
        let killer = std::thread::spawn(move || {
            while enough.load(Ordering::Relaxed) < 4 {
                std::thread::sleep(Duration::from_millis(1));
            }
            // Somewhere in the orders that follow.
            std::thread::sleep(Duration::from_micros(1_300 * round));
            child.kill().expect("killed");
            child.wait().expect("ended");
        });
        let deadline = Instant::now() + Duration::from_secs(60);
        for number in 0.. {
            assert!(Instant::now() < deadline, "it is not killed");
            let name = format!("t{round}-{number}");
            let order = json!({"name": &name, "request": request}).to_string();
            let Ok((200, added)) = ask(&home.dir, "POST", "/v1/terminals", &order) else {
                break;
            };
            names.push((added["number"].as_u64().expect("a number"), name));
            answered.fetch_add(1, Ordering::Relaxed);
            if let Ok((200, renewed)) = ask(&home.dir, "POST", "/v1/devices/renew", "{}") {
                generation = renewed["generation"].as_u64().expect("a generation");
            }
        }
        killer.join().expect("killed");
    }

    let server = Served::start(&home.dir).expect("it starts after every crash");
    assert!(
        names.len() > 10,
        "only {} terminals were added",
        names.len()
    );
    let terminals = server.report("/v1/terminals");
    let kept: BTreeMap<u64, &Value> = terminals["terminals"]
        .as_array()
        .expect("terminals")
        .iter()
        .map(|terminal| {
            (
                terminal["number"].as_u64().expect("a number"),
                &terminal["name"],
            )
        })
        .collect();
    for (number, name) in &names {
        assert_eq!(kept.get(number), Some(&&json!(name)));
    }
    let keys = server.report("/v1/keys");
    let fleet = keys["fleet_generation"].as_u64().expect("G");
    assert!(
        fleet >= generation,
        "G {fleet} after {generation} was answered"
    );
    for key in keys["keys"].as_array().expect("keys") {
        let expected = if key["kind"] == "wrap" { fleet } else { 0 };
        assert_eq!(key["generation"], expected, "all wrap keys step together");
    }
    assert_eq!(server.report("/v1/audit/verify")["whole"], true);
    server.end();

    let frames = heard.end();
    let mut numbered = BTreeMap::new();
    for frame in &frames {
        let read = Unverified::decode(frame).expect("a command");
        let sequence = read.command().sequence.get();
        let first = numbered.entry(sequence).or_insert(frame);
        assert_eq!(*first, frame, "sequence {sequence} names two commands");
    }
    assert!(
        numbered.len() > 20,
        "only {} commands were heard",
        numbered.len()
    );
}

/// A server in a process of its own: this program again, as the test below.
fn serve_apart(dir: &Path) -> Child {
    let child = Command::new(std::env::current_exe().expect("a path"))
        .args(["--exact", "crash::serves_where_the_environment_says"])
        .env("KEYFALL_TEST_SERVES", dir)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it runs");
    let deadline = Instant::now() + Duration::from_secs(30);
    while UnixStream::connect(dir.join("admin.sock")).is_err() {
        assert!(Instant::now() < deadline, "it does not answer");
        std::thread::sleep(Duration::from_millis(2));
    }
    child
}

/// The server of the test above, which is never told to end.
#[test]
fn serves_where_the_environment_says() {
    let Some(dir) = std::env::var_os("KEYFALL_TEST_SERVES") else {
        return;
    };
    let server = Served::start(Path::new(&dir)).expect("it runs");
    std::thread::sleep(Duration::from_secs(60));
    server.end();
}

/// Hears the carrier in a thread until it is told to end.
struct Hearing {
    end: tokio::sync::oneshot::Sender<()>,
    thread: std::thread::JoinHandle<Vec<Vec<u8>>>,
}

fn hear(home: &Home) -> Hearing {
    let carrier = home.carrier;
    let (end, mut ended) = tokio::sync::oneshot::channel();
    let (ready, is_ready) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.expect("a runtime").block_on(async move {
            let mut receiver = MulticastReceiver::open(&carrier).expect("a receiver");
            ready.send(()).expect("the test waits");
            let mut frames = Vec::new();
            loop {
                tokio::select! {
                    _ = &mut ended => return frames,
                    frame = receiver.recv() => frames.push(frame.expect("a frame").to_vec()),
                }
            }
        })
    });
    is_ready.recv().expect("it hears");
    Hearing { end, thread }
}

impl Hearing {
    fn end(self) -> Vec<Vec<u8>> {
        self.end.send(()).expect("it hears");
        self.thread.join().expect("no panic")
    }
}
