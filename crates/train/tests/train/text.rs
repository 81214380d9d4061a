//! Text as tokens: vocabularies, files of text and of tokens, windows, and text out of tokens as they come.

use std::path::Path;

use binade_cpu as _;
use binade_nn::Linear;
use binade_train::{Corpus, Data, Decoder, Language, Numbers, Stop, Task, Tokenizer, Vocabulary};

fn text() -> String {
    (0..600).map(|i| ["ab", "ba", "c\n"][(i * i + i / 3) % 3]).collect()
}

fn written(folder: &Path, name: &str, bytes: impl AsRef<[u8]>) -> std::path::PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn numbers(size: usize) -> Tokenizer {
    Tokenizer::Known(Vocabulary::Numbers { size })
}

/// The tokens of a window and those after each.
fn window(data: &dyn Data, i: usize, key: Option<binade_tensor::Key>) -> [Vec<u32>; 2] {
    let sample = data.sample(i, key).unwrap();
    ["tokens", "next"].map(|name| match &sample.get(name).unwrap().numbers {
        Numbers::I64(tokens) => tokens.iter().map(|&token| token as u32).collect(),
        other => panic!("{other:?}"),
    })
}

#[test]
fn windows_hold_the_text_and_the_token_after_each() {
    let folder = tempfile::tempdir().unwrap();
    let text = text();
    let whole = Corpus::open(&written(folder.path(), "text", &text), &Tokenizer::Characters).unwrap();
    let (vocabulary, data) = (whole.vocabulary().clone(), whole.splits(6, 50, 8).unwrap());
    let tokens = vocabulary.encode(&text).unwrap();
    assert_eq!((whole.len(), vocabulary.size(), vocabulary.decode(&tokens)), (1200, 4, text.clone()));
    for (data, part) in [(&data.train, &text[..1080]), (&data.test, &text[1080..])] {
        for i in 0..data.len() {
            let [tokens, next] = window(&**data, i, Some(binade_tensor::Key::new(0, 3)));
            assert_eq!(tokens[1..], next[..5]);
            assert!(part.contains(&(vocabulary.decode(&tokens) + &vocabulary.decode(&next[5..]))));
        }
    }
    let places = |epoch| {
        let key = Some(binade_tensor::Key::new(0, epoch));
        (0..50).map(|i| window(&*data.train, i, key)).collect::<Vec<_>>()
    };
    assert_eq!(places(0), places(0));
    assert_ne!(places(0), places(1));
    assert_eq!(window(&*data.test, 1, None)[0], tokens[1086..1092]);
}

#[test]
fn files_of_tokens_are_read_as_nanogpt_and_llm_c_write_them() {
    let folder = tempfile::tempdir().unwrap();
    let tokens: Vec<u32> = (0..500).map(|i| i * i % 997).collect();
    let small: Vec<u8> = tokens.iter().flat_map(|&t| (t as u16).to_le_bytes()).collect();
    let large: Vec<u8> = tokens.iter().flat_map(|t| t.to_le_bytes()).collect();
    let header = |magic: u32, version: u32| {
        let mut header = [0u8; 1024];
        for (i, number) in [magic, version, 500].into_iter().enumerate() {
            header[4 * i..][..4].copy_from_slice(&number.to_le_bytes());
        }
        header.to_vec()
    };
    let files = [
        written(folder.path(), "nano.bin", &small),
        written(folder.path(), "llmc.bin", [header(20_240_520, 1), small.clone()].concat()),
        written(folder.path(), "wide.bin", [header(20_240_801, 7), large].concat()),
    ];
    for path in files {
        let corpus = Corpus::open(&path, &numbers(997)).unwrap();
        let data = corpus.splits(9, 20, 100).unwrap();
        // The last 50 have five windows of 9 with a token behind.
        assert_eq!((corpus.len(), data.test.len()), (500, 5));
        assert_eq!(window(&*data.test, 4, None), [tokens[486..495].to_vec(), tokens[487..496].to_vec()]);
        let key = Some(binade_tensor::Key::new(4, 2));
        for i in 0..20 {
            let [seen, next] = window(&*data.train, i, key);
            assert!(tokens[..450].windows(10).any(|w| w[..9] == seen[..] && w[1..] == next[..]));
        }
    }
    // A folder of both: the other file is what is evaluated on.
    written(folder.path(), "train.bin", &small);
    written(folder.path(), "val.bin", &small[200..240]);
    let corpus = Corpus::open(folder.path(), &numbers(1000)).unwrap();
    let data = corpus.splits(9, 20, 100).unwrap();
    assert_eq!((corpus.len(), data.test.len()), (500, 2));
    assert_eq!(window(&*data.test, 0, None)[0], tokens[100..109]);
    assert_ne!(corpus.name(), Corpus::open(&folder.path().join("train.bin"), &numbers(1000)).unwrap().name());
}

#[test]
fn texts_that_cannot_be_learnt_from_say_why() {
    let folder = tempfile::tempdir().unwrap();
    let error = |name: &str, bytes: &[u8], tokenizer: &Tokenizer| {
        let corpus = Corpus::open(&written(folder.path(), name, bytes), tokenizer);
        corpus.and_then(|corpus| corpus.splits(64, 10, 10)).map(drop).unwrap_err().to_string()
    };
    let characters = &Tokenizer::Characters;
    assert!(error("text", b"", characters).contains("an empty file"));
    assert!(error("text", b"abc\xff", characters).contains("text in UTF-8, found something else at byte 3"));
    assert!(error("text", &[b'a'; 640], characters).contains("at least 650 tokens, for windows of 64"));
    let known = Tokenizer::Known(Vocabulary::of_characters("abc"));
    assert!(error("text", b"abzc", &known).contains("the vocabulary of 3 characters has no 'z'"));
    assert!(error("text", b"abzc", &numbers(9)).contains("expected a token below 9, got \"abzc\""));
    assert!(Corpus::open(&folder.path().join("none"), characters).unwrap_err().to_string().contains("none"));

    assert!(error("a.bin", b"", &numbers(9)).contains("expected tokens, found none"));
    assert!(error("a.bin", b"abc", &numbers(9)).contains("expected tokens of 2 bytes, found 3 bytes"));
    assert!(error("a.bin", &[1; 20], characters).contains("expected a vocabulary for its tokens"));
    let beyond = [0, 0, 1, 0, 9, 0].repeat(100);
    assert!(
        error("a.bin", &beyond, &numbers(9)).contains("tokens below 9, the size of the vocabulary, found 9 at place 2")
    );
    let mut cut = vec![0; 1030];
    cut[..4].copy_from_slice(&20_240_520u32.to_le_bytes());
    cut[8] = 100;
    assert!(
        error("a.bin", &cut, &numbers(9)).contains("100 tokens of 2 or 4 bytes, as its header says, found 6 bytes")
    );

    let all = Corpus::shakespeare(characters).unwrap();
    assert_eq!((all.len(), all.vocabulary().size()), (1_150_844, 76));
    assert!(all.splits(0, 10, 10).is_err());
}

#[cfg(feature = "bpe")]
#[test]
fn the_tokens_of_gpt_2_are_tiktokens() {
    let gpt2 = Vocabulary::Gpt2;
    assert_eq!(gpt2.encode("Hello world").unwrap(), [15496, 995]);
    assert_eq!((gpt2.size(), gpt2.beginning()), (50_257, vec![50_256]));
    assert_eq!(gpt2.encode_prompt("Hello<|endoftext|>").unwrap(), [15496, 50_256]);
    assert!(gpt2.encode("<|endoftext|>").unwrap().len() > 1 && gpt2.ends(50_256) && !gpt2.ends(995));
    let text = "It is I, Hamlet the Dane: 1601 — “naïve” 😀\n\n  end";
    let tokens = gpt2.encode(text).unwrap();
    assert_eq!(gpt2.decode(&tokens), text);
    // A token is a part of a character here, and no text comes before the character is whole.
    let face = gpt2.encode("😀").unwrap();
    let mut decoder = Decoder::new(gpt2.clone());
    let pieces: Vec<String> = face.iter().map(|&token| decoder.push(token)).collect();
    assert!(face.len() > 1 && pieces.concat() == "😀" && pieces[0].is_empty(), "{face:?} {pieces:?}");
    assert_eq!(gpt2.decode(&face[..1]), "\u{fffd}");
    assert_eq!(gpt2.decode(&[face[0], 995]), "\u{fffd} world");
    assert_eq!(gpt2.decode(&[60_000, 995]), " world");

    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path(), "text", "the cat sat on the mat. ".repeat(100));
    let corpus = Corpus::open(&path, &Tokenizer::Known(gpt2)).unwrap();
    let (_, per_token) = corpus.per_token(8, 5).unwrap().unwrap();
    assert!((3.0..4.0).contains(&per_token), "{per_token}");
}

#[test]
fn bits_are_per_character_or_byte_of_what_is_predicted() {
    let folder = tempfile::tempdir().unwrap();
    let corpus = Corpus::open(&written(folder.path(), "text", text()), &Tokenizer::Characters).unwrap();
    assert_eq!(corpus.per_token(6, 8).unwrap(), Some(("character", 1.0)));
    let (task, _) = Language::<Linear>::new(&corpus, 6, 50, 8).unwrap();
    let unit = task.text_unit().unwrap();
    assert!((unit.bits(2.0 * std::f64::consts::LN_2) - 2.0).abs() < 1e-12);
    let bin = Corpus::open(&written(folder.path(), "a.bin", [1, 0].repeat(100)), &numbers(2)).unwrap();
    assert_eq!(bin.per_token(6, 8).unwrap(), None);
}

#[test]
fn a_vocabulary_is_read_as_it_is_written() {
    for vocabulary in [Vocabulary::of_characters("b a\n\"é"), Vocabulary::Numbers { size: 7 }] {
        let json = serde_json::to_string(&vocabulary).unwrap();
        assert_eq!(serde_json::from_str::<Vocabulary>(&json).unwrap(), vocabulary, "{json}");
    }
    let numbers = Vocabulary::Numbers { size: 70 };
    assert_eq!(numbers.encode("3, 4 69").unwrap(), [3, 4, 69]);
    assert_eq!(numbers.decode(&[3, 69]), " 3 69");
    assert_eq!(Vocabulary::of_characters("b\na").beginning(), [0]);
}

#[test]
fn text_ends_before_a_stop_word_however_it_is_cut() {
    let whole = "one\n\ntwo\n\n\nthree";
    let through = |words: &[&str], size: usize| {
        let mut stop = Stop::new(&words.iter().map(|word| word.to_string()).collect::<Vec<_>>());
        let pieces: Vec<char> = whole.chars().collect();
        let text: String = pieces.chunks(size).map(|piece| stop.push(&piece.iter().collect::<String>())).collect();
        let found = stop.found();
        (text + &stop.finish(), found)
    };
    for size in [1, 2, 3, 50] {
        assert_eq!(through(&["\n\n\n"], size), ("one\n\ntwo".into(), true), "{size}");
        assert_eq!(through(&["tree", "wo"], size), ("one\n\nt".into(), true), "{size}");
        assert_eq!(through(&["threes", ""], size), (whole.into(), false), "{size}");
    }
    let mut stop = Stop::new(&["ab".into()]);
    assert_eq!([stop.push("xa"), stop.push("a"), stop.push("b"), stop.push("c")], ["x", "a", "", ""]);
}
