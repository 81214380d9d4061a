//! CLIP's tokenizer over a small vocabulary with its rules.

use std::collections::HashMap;

use binade_diffusion::Tokenizer;

/// All bytes, with and without the mark at the end of a word, and the merges of a few words.
fn tokenizer(length: usize) -> Tokenizer {
    let plain: Vec<char> = ('!'..='~').chain('¡'..='¬').chain('®'..='ÿ').collect();
    let others = (0..=255u32).filter(|b| !plain.contains(&char::from_u32(*b).unwrap())).count() as u32;
    let letters: Vec<String> =
        plain.iter().copied().chain((0..others).map(|i| char::from_u32(256 + i).unwrap())).map(String::from).collect();
    let mut tokens: Vec<String> = letters.clone();
    tokens.extend(letters.iter().map(|l| format!("{l}</w>")));
    let merges = "#version: 0.2\nc a\nca t</w>\na </w>\nh o\nho use</w>\nu s\nus e</w>\nd o\ndo g</w>";
    for line in merges.lines().skip(1) {
        tokens.push(line.replace(' ', ""));
    }
    tokens.extend(["<|startoftext|>".into(), "<|endoftext|>".into()]);
    let vocabulary: HashMap<String, i64> = tokens.into_iter().enumerate().map(|(i, t)| (t, i as i64)).collect();
    Tokenizer::new(vocabulary, merges, None, length).unwrap()
}

fn pieces(tokenizer: &Tokenizer, text: &str) -> usize {
    let ids = tokenizer.encode(text).unwrap().ids;
    let end = *ids.last().unwrap();
    ids.iter().position(|id| *id == end).unwrap() - 1
}

#[test]
fn words_are_merged_by_rank_and_marked_at_their_end() {
    let tokenizer = tokenizer(16);
    assert_eq!(pieces(&tokenizer, "cat"), 1);
    assert_eq!(pieces(&tokenizer, "dog"), 1);
    // `h o` comes before `u s`, and `us e` after: ho, use, then both.
    assert_eq!(pieces(&tokenizer, "house"), 1);
    assert_eq!(pieces(&tokenizer, "cats"), 3);
    // A letter of two bytes, digits one by one, an ending, punctuation in one word.
    assert_eq!(pieces(&tokenizer, "é"), 2);
    assert_eq!(pieces(&tokenizer, "12"), 2);
    assert_eq!(pieces(&tokenizer, "cat's"), 3);
    assert_eq!(pieces(&tokenizer, "!?"), 2);
}

#[test]
fn case_and_spaces_make_no_difference() {
    let tokenizer = tokenizer(16);
    let ids = |text| tokenizer.encode(text).unwrap().ids;
    assert_eq!(ids("  Cat \n DOG "), ids("cat dog"));
    assert_eq!(ids("").len(), 16);
}

#[test]
fn what_is_too_long_is_cut_and_told() {
    let tokenizer = tokenizer(5);
    let tokens = tokenizer.encode("cat dog cat dog cat").unwrap();
    assert_eq!((tokens.ids.len(), tokens.cut.as_str()), (5, "dog cat"));
    assert_eq!(tokens.ids[4], tokenizer.encode("").unwrap().ids[4]);
    assert_eq!(tokenizer.encode("cat dog cat").unwrap().cut, "");
}

#[test]
fn a_vocabulary_without_what_is_needed_is_refused() {
    assert!(Tokenizer::new(HashMap::new(), "", None, 77).unwrap_err().to_string().contains("<|startoftext|>"));
    let both: HashMap<String, i64> = [("<|startoftext|>".to_string(), 0), ("<|endoftext|>".to_string(), 1)].into();
    assert!(Tokenizer::new(both.clone(), "one", None, 77).unwrap_err().to_string().contains("\"one\""));
    assert!(Tokenizer::new(both.clone(), "", Some("!"), 77).unwrap_err().to_string().contains("\"!\""));
    assert!(Tokenizer::new(both, "", None, 77).unwrap().encode("cat").unwrap_err().to_string().contains("\"c\""));
}
