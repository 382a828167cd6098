//! Who may order: the kernel says who asks (REQUIREMENTS R-026).

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::served::{Home, ask};

#[test]
fn the_socket_is_for_one_user_and_the_log_names_him() {
    let home = Home::founded();
    let server = home.serve();
    let socket = fs::metadata(home.file("admin.sock")).expect("a socket");
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);
    server.order("/v1/devices/renew", serde_json::json!({}));
    let log = server.report("/v1/audit?last=1");
    assert_eq!(log["entries"][0]["actor"], format!("uid {}", socket.uid()));
}

/// Even where somebody opened directory and socket to all. Takes root, to become another user.
#[test]
fn another_user_is_refused() {
    let home = Home::founded();
    let server = home.serve();
    if fs::metadata(&home.dir).expect("a directory").uid() != 0 {
        eprintln!("skipped: only root can become another user");
        return;
    }
    let opened = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set");
    };
    opened(home.dir.parent().expect("a parent"), 0o755);
    opened(&home.dir, 0o755);
    opened(&home.file("admin.sock"), 0o666);
    // This program, where another user can read it.
    let stranger = home.dir.with_file_name("stranger");
    fs::copy(std::env::current_exe().expect("a path"), &stranger).expect("copied");
    opened(&stranger, 0o755);
    let mut command = Command::new(&stranger);
    command
        .args(["--exact", "peers::asks_where_the_environment_says"])
        .arg("--nocapture")
        .env("KEYFALL_TEST_ASKS", &home.dir)
        .current_dir("/")
        .uid(65_534)
        .gid(65_534);
    // A child of another test may hold the copy open for writing until it has begun.
    let run = (0..100)
        .find_map(|_| match command.output() {
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => {
                std::thread::sleep(Duration::from_millis(50));
                None
            }
            other => Some(other.expect("it runs")),
        })
        .expect("it is free in the end");
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(said.contains("403") && said.contains("KF-3303"), "{said}");
    assert_eq!(
        server.report("/v1/audit")["entries"]
            .as_array()
            .expect("entries")
            .len(),
        2
    );
}

/// The stranger of the test above.
#[test]
#[expect(clippy::print_stdout, reason = "the test above reads it")]
fn asks_where_the_environment_says() {
    let Some(dir) = std::env::var_os("KEYFALL_TEST_ASKS") else {
        return;
    };
    let answer = ask(Path::new(&dir), "POST", "/v1/devices/renew", "{}");
    println!("{answer:?}");
}
