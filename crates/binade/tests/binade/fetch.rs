//! Files that are fetched, from servers on this machine that cut, lie and stall; and what is said without a network.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use binade::cli::archive::unpack;
use binade::cli::fetch::{Patience, Progress, Remote, fetch};

/// What a server does with a request.
#[derive(Clone, Copy, Debug)]
enum Does {
    /// Sends what is asked for.
    Sends,
    /// Closes the connection after so many bytes.
    Cuts(usize),
    /// Sends nothing more after so many bytes.
    Stalls(usize),
    /// Says nothing at all.
    IsSilent,
    /// Sends other bytes.
    Lies,
    /// Sends all of it, whatever is asked for.
    IgnoresRanges,
    /// Sends from another place than asked for.
    SendsElsewhere,
    /// Says that the file has so many bytes more.
    SaysLonger(usize),
    /// Sends more than there is, without saying how much.
    SendsMore,
    /// Ends after so many bytes, as if that were all.
    EndsAfter(usize),
    /// Says that it cannot.
    Refuses(&'static str),
}

/// A server that does these in turn, the last again and again, and what was asked of it.
struct Server {
    url: String,
    ranges: Arc<Mutex<Vec<usize>>>,
}

impl Server {
    fn new(contents: &[u8], does: &[Does]) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/file", listener.local_addr().unwrap());
        let ranges = Arc::new(Mutex::new(Vec::new()));
        let (contents, does, asked) = (contents.to_vec(), does.to_vec(), ranges.clone());
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().flatten().enumerate() {
                let does = does[number.min(does.len() - 1)];
                // A client that goes away is no fault of the server.
                let _ = serve(stream, &contents, does, &asked);
            }
        });
        Server { url, ranges }
    }

    fn asked(&self) -> Vec<usize> {
        self.ranges.lock().unwrap().clone()
    }
}

fn serve(mut stream: TcpStream, contents: &[u8], does: Does, asked: &Mutex<Vec<usize>>) -> std::io::Result<()> {
    let mut from = 0;
    for line in BufReader::new(stream.try_clone()?).lines() {
        let line = line?.to_ascii_lowercase();
        if let Some(range) = line.strip_prefix("range: bytes=") {
            from = range.trim_end_matches('-').parse().unwrap();
        }
        if line.is_empty() {
            break;
        }
    }
    asked.lock().unwrap().push(from);
    let size = contents.len();
    let lies: Vec<u8> = contents.iter().map(|byte| byte ^ 1).collect();
    let (contents, more) = match does {
        Does::Lies => (&lies[..], 0),
        Does::SaysLonger(more) => (contents, more),
        _ => (contents, 0),
    };
    let from = if matches!(does, Does::IgnoresRanges) { 0 } else { from };
    let body = &contents[from..];
    let wait = |stream: &mut TcpStream| stream.read_to_end(&mut Vec::new()).map(drop);
    match does {
        Does::Refuses(status) => return write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"),
        Does::IsSilent => return wait(&mut stream),
        Does::SendsMore | Does::EndsAfter(_) => {
            write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
            let all = [contents, b"and more"].concat();
            return stream.write_all(if let Does::EndsAfter(after) = does { &all[..after] } else { &all });
        }
        _ => {}
    }
    let begins = if matches!(does, Does::SendsElsewhere) { from / 2 } else { from };
    let length = body.len() + more;
    match from {
        0 => write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n")?,
        _ => write!(
            stream,
            "HTTP/1.1 206 Partial Content\r\nContent-Length: {length}\r\nContent-Range: bytes {begins}-{}/{}\r\n\r\n",
            size - 1,
            size + more
        )?,
    }
    match does {
        Does::Cuts(after) => stream.write_all(&body[..after.min(body.len())]),
        Does::Stalls(after) => {
            stream.write_all(&body[..after.min(body.len())])?;
            wait(&mut stream)
        }
        _ => stream.write_all(body),
    }
}

/// Keeps what was told.
#[derive(Default)]
struct Told {
    trouble: Vec<String>,
    positions: Vec<u64>,
}

impl Progress for Told {
    fn at(&mut self, _: &str, bytes: u64, _: u64) {
        self.positions.push(bytes);
    }

    fn trouble(&mut self, what: &str) {
        self.trouble.push(what.into());
    }
}

const SIZE: usize = 300_000;

fn contents() -> Vec<u8> {
    (0..SIZE).map(|i| (i * i / 7 + i) as u8).collect()
}

/// As `sha256sum` has it for [`contents`].
const SUM: &str = "54a8b3c2ed10f3f595ce0e3e19dec26fb210f172f3f5b720ba537ae4fa92a572";

const PATIENCE: Patience = Patience { tries: 4, silence: Duration::from_millis(400), pause: Duration::from_millis(1) };

/// Fetches from these places in turn: what came of it, and what was told.
fn fetched(servers: &[&Server], to: &Path) -> (Result<Vec<u8>, String>, Told) {
    let urls = servers.iter().map(|server| server.url.clone()).collect();
    let remote = Remote { name: "file", urls, size: SIZE as u64, sha256: SUM };
    let mut told = Told::default();
    let result = fetch(&remote, to, &PATIENCE, &mut told).map_err(|error| format!("{error:#}"));
    (result.map(|path| std::fs::read(path).unwrap()), told)
}

fn names(folder: &Path) -> Vec<String> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Fetches from one server that does these in turn; it must come to the file, and ask for the bytes from these on.
fn comes(does: &[Does], asks: &[usize]) {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::new(&contents(), does);
    let (result, told) = fetched(&[&server], folder.path());
    assert!(result.unwrap_or_else(|error| panic!("{does:?}: {error}")) == contents(), "{does:?}");
    assert_eq!(server.asked(), asks, "{does:?}: {:?}", told.trouble);
    assert_eq!(told.trouble.len(), asks.len() - 1, "{does:?}: {:?}", told.trouble);
    assert_eq!((told.positions.last(), names(folder.path())), (Some(&(SIZE as u64)), vec!["file".to_string()]));
}

#[test]
fn what_is_cut_off_or_stalls_is_gone_on_with_where_it_ended() {
    comes(&[Does::Sends], &[0]);
    comes(&[Does::Cuts(1_000), Does::Cuts(70_000), Does::Sends], &[0, 1_000, 71_000]);
    comes(&[Does::Cuts(0), Does::Sends], &[0, 0]);
    let start = Instant::now();
    comes(&[Does::Stalls(5_000), Does::IsSilent, Does::Sends], &[0, 5_000, 5_000]);
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    comes(
        &[Does::Refuses("503 Service Unavailable"), Does::Cuts(9), Does::Refuses("429 Slow"), Does::Sends],
        &[0, 0, 9, 9],
    );
    comes(&[Does::Cuts(100_000), Does::IgnoresRanges], &[0, 100_000]);
    // As often as it likes, while each try brings something.
    comes(
        &[[Does::Cuts(20_000); 10].as_slice(), &[Does::Sends]].concat(),
        &Vec::from_iter((0..=10).map(|i| i * 20_000)),
    );
}

#[test]
fn lies_are_found_and_nothing_has_the_files_name() {
    for (does, word) in [
        (vec![Does::Lies], "SHA-256"),
        (vec![Does::Sends, Does::Lies], ""),
        (vec![Does::Cuts(50_000), Does::Lies, Does::Lies], "SHA-256"),
        (vec![Does::Cuts(50_000), Does::SendsElsewhere], "it sends others"),
        (vec![Does::SaysLonger(8)], "300008 bytes, 300000 were published"),
        (vec![Does::Cuts(7), Does::SaysLonger(8)], "300008 bytes, 300000 were published"),
        (vec![Does::SendsMore], "more than 300000 bytes"),
        (vec![Does::Refuses("404 Not Found")], "404"),
        (vec![Does::Refuses("503 Service Unavailable")], "503"),
        (vec![Does::Cuts(0)], "after 0 bytes"),
        (vec![Does::EndsAfter(10)], "299990 bytes early"),
    ] {
        let (folder, server) = (tempfile::tempdir().unwrap(), Server::new(&contents(), &does));
        let (result, _) = fetched(&[&server], folder.path());
        if word.is_empty() {
            assert!(result.is_ok_and(|bytes| bytes == contents()));
            continue;
        }
        let error = result.unwrap_err();
        assert!(error.contains(word) && error.contains(&server.url), "{does:?}: {error}");
        assert_eq!(names(folder.path()), [".file.part"], "{does:?}");
        // Another place is asked, with or without what the first has left.
        let good = Server::new(&contents(), &[Does::Sends]);
        let (result, _) = fetched(&[&Server::new(&contents(), &does), &good], folder.path());
        assert!(result.is_ok_and(|bytes| bytes == contents()), "{does:?} and another place");
        assert_eq!(names(folder.path()), ["file"], "{does:?}");
    }
}

#[test]
fn a_second_call_goes_on_from_the_first_and_a_third_has_nothing_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let cut = Server::new(&contents(), &[Does::Cuts(120_000), Does::Cuts(0)]);
    assert!(fetched(&[&cut], folder.path()).0.unwrap_err().contains("after 120000 bytes"));
    let server = Server::new(&contents(), &[Does::Sends]);
    assert!(fetched(&[&server], folder.path()).0.unwrap() == contents());
    assert!(fetched(&[&server], folder.path()).0.unwrap() == contents());
    assert_eq!(server.asked(), [120_000]);
    // What is left of another file is found by the sum, and is no fault of the place.
    std::fs::rename(folder.path().join("file"), folder.path().join(".file.part")).unwrap();
    let mut damaged = contents();
    damaged[77] ^= 1;
    std::fs::write(folder.path().join(".file.part"), &damaged[..200_000]).unwrap();
    assert!(fetched(&[&server], folder.path()).0.unwrap() == contents());
    assert_eq!(server.asked(), [120_000, 200_000, 0]);
    // A file of the user's own stays.
    std::fs::write(folder.path().join("file"), "mine").unwrap();
    assert!(fetched(&[&server], folder.path()).0.unwrap_err().contains("another file of that name"));
    assert_eq!(std::fs::read(folder.path().join("file")).unwrap(), b"mine");
}

#[test]
fn archives_give_their_members_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let archive = |files: &[(&str, &[u8])]| {
        let path = folder.path().join("a.tar.gz");
        let packed = flate2::write::GzEncoder::new(std::fs::File::create(&path).unwrap(), flate2::Compression::fast());
        let mut tar = tar::Builder::new(packed);
        for (name, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            // As it is: one that leads out of the folder too.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            tar.append(&header, *bytes).unwrap();
        }
        tar.into_inner().unwrap().finish().unwrap();
        path
    };
    let to = folder.path().join("to");
    std::fs::create_dir(&to).unwrap();
    let whole = archive(&[("set/readme.html", b"no"), ("../../train.bin", b"12345"), ("set/test.bin", b"678")]);
    let members = [("train.bin", 5), ("test.bin", 3)];
    unpack(&whole, &members, &to).unwrap();
    let mut found = names(&to);
    found.sort();
    assert_eq!(found, ["test.bin", "train.bin"]);
    assert_eq!(std::fs::read(to.join("train.bin")).unwrap(), b"12345");
    assert!(!folder.path().join("train.bin").exists());
    let error = |path: &Path| format!("{:#}", unpack(path, &members, &to).unwrap_err());
    assert!(error(&archive(&[("set/train.bin", b"12345")])).contains("it has no test.bin"));
    assert!(error(&archive(&[("train.bin", b"1234"), ("test.bin", b"678")])).contains("4 bytes, 5 expected"));
    let torn = std::fs::read(&whole).unwrap();
    std::fs::write(&whole, &torn[..torn.len() / 2]).unwrap();
    assert!(error(&whole).contains("a.tar.gz") || error(&whole).contains("train.bin"));
}

/// Without a way to the publishers: a proxy that is not there.
fn offline(args: &[&str], folder: &Path) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_binade"));
    for name in ["ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "all_proxy", "https_proxy", "http_proxy"] {
        command.env(name, "http://127.0.0.1:1");
    }
    let out = command.env("NO_PROXY", "127.0.0.1").env("no_proxy", "127.0.0.1").args(args).current_dir(folder).output();
    let out = out.unwrap();
    (out.status.code(), String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned())
}

#[test]
fn without_a_network_it_says_what_to_do_by_hand() {
    let folder = tempfile::tempdir().unwrap();
    for (name, file, from) in [
        ("mnist", "t10k-labels-idx1-ubyte.gz", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
        ("fashion-mnist", "train-images-idx3-ubyte.gz", "fashion-mnist.s3-website"),
        ("cifar10", "cifar-10-binary.tar.gz", "https://www.cs.toronto.edu/~kriz/"),
        ("cifar100", "cifar-100-binary.tar.gz", "https://www.cs.toronto.edu/~kriz/"),
        ("tiny-shakespeare", "input.txt", "https://raw.githubusercontent.com/karpathy/"),
    ] {
        let (code, said) = offline(&["data", name, "--to", "d", "--tries", "1"], folder.path());
        assert_eq!(code, Some(1), "{said}");
        for word in ["without a network", file, from, "--mirror", "into d"] {
            assert!(said.contains(word), "{name}: {word} in {said}");
        }
    }
    let lying = Server::new(b"not the plays", &[Does::Sends]);
    let mirror = lying.url.trim_end_matches("/file").to_string();
    let asked = ["data", "tiny-shakespeare", "--to", "d", "--tries", "2", "--mirror", &mirror];
    let (code, said) = offline(&asked, folder.path());
    assert!(code == Some(1) && said.contains("13 bytes, 1115394 were published"), "{said}");
    assert!(!folder.path().join("d/input.txt").exists());
    // What is there already is not asked for.
    for (name, size) in [("train.bin", 153_700_000), ("test.bin", 30_740_000)] {
        std::fs::File::create(folder.path().join("d").join(name)).unwrap().set_len(size).unwrap();
    }
    let (code, said) = offline(&["data", "cifar100", "--to", "d", "--json"], folder.path());
    assert_eq!(code, Some(0), "{said}");
    let told: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&told["files"]["test.bin"], &told["data"]), (&30_740_000.into(), &"cifar100".into()));
}
