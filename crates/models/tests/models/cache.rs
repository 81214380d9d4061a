//! A language model that keeps keys and values writes what it writes without them.

use binade_amp::Policy;
use binade_autograd::{Var, scope};
use binade_cpu as _;
use binade_models::{Gpt, GptConfig, Sampling, Writer};
use binade_nn::Layer;
use binade_tensor::DType;

fn model() -> Gpt {
    let config = GptConfig {
        vocabulary: 31,
        context: 24,
        features: 32,
        depth: 3,
        heads: 4,
        scale_by_depth: true,
        deviation: 0.2,
        ..GptConfig::gpt2()
    };
    scope::with_key(9, 0, || Gpt::new(&config)).unwrap()
}

fn ids(tokens: &[i64]) -> Var {
    Var::from_slice(tokens, &[1, tokens.len()]).unwrap()
}

/// The logits after each token from the third on, with or without the cache.
fn logits(model: &Gpt, tokens: &[i64], dtype: Option<DType>) -> Vec<Vec<f64>> {
    let values = |y: Var| y.array().to_f64_vec().unwrap();
    let last = |y: Var| y.narrow(1, y.shape()[1] - 1, 1).unwrap();
    scope::eval(|| match dtype {
        None => (3..=tokens.len()).map(|n| values(last(model.forward(&ids(&tokens[..n])).unwrap()))).collect(),
        Some(dtype) => {
            let mut cache = model.cache(1, dtype).unwrap();
            let mut all = vec![values(model.forward_cached(&ids(&tokens[..3]), &mut cache).unwrap())];
            for token in &tokens[3..] {
                all.push(values(model.forward_cached(&ids(&[*token]), &mut cache).unwrap()));
            }
            assert_eq!(cache.len(), tokens.len());
            all
        }
    })
}

fn best(logits: &[f64]) -> usize {
    (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap()
}

#[test]
fn logits_are_within_the_bound_of_the_precision_and_the_greedy_tokens_the_same() {
    let (model, tokens) = (model(), (0..24).map(|i| i * 7 % 31).collect::<Vec<i64>>());
    let cases = [
        (Policy::OFF, DType::F32, 1e-5),
        (Policy::autocast(DType::BF16), DType::BF16, 2e-2),
        (Policy::autocast(DType::F16), DType::F16, 3e-3),
    ];
    for (policy, dtype, bound) in cases {
        let (with, without) = policy.run(|| (logits(&model, &tokens, Some(dtype)), logits(&model, &tokens, None)));
        for (a, b) in with.iter().zip(&without) {
            let size = b.iter().map(|v| v * v).sum::<f64>().sqrt();
            let off = a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
            assert!(off <= bound * size, "{dtype}: {off} of {size}");
            if dtype == DType::F32 {
                assert_eq!(best(a), best(b));
            }
        }
        assert_eq!(with.len(), 22);
    }
}

#[test]
fn what_the_cache_has_no_room_for_is_an_error() {
    let model = model();
    let mut cache = model.cache(1, DType::F32).unwrap();
    let all: Vec<i64> = (0..24).collect();
    model.forward_cached(&ids(&all), &mut cache).unwrap();
    let error = model.forward_cached(&ids(&[1]), &mut cache).unwrap_err().to_string();
    assert!(error.contains("context of 24") && error.contains("behind 24"), "{error}");
    cache.clear();
    model.forward_cached(&ids(&[1, 2]), &mut cache).unwrap();
    let error = model.forward_cached(&ids(&[1, 2]), &mut cache).unwrap_err().to_string();
    assert!(error.contains("one is read at a time"), "{error}");
    assert!(model.forward(&ids(&[0; 25])).unwrap_err().to_string().contains("context of 24"));
}

/// Tokens that are written after a prompt, past the context too.
fn written(sampling: Sampling, seed: u64, cached: Option<DType>) -> Vec<i64> {
    let model = model();
    let mut writer = Writer::new(&model, &[3, 1, 4], 1, sampling, seed, cached).unwrap();
    (0..40).for_each(|_| assert!(writer.write().is_ok()));
    writer.texts()[0].clone()
}

#[test]
fn the_same_tokens_are_written_with_and_without_a_cache_past_the_context_too() {
    let drawn = Sampling { repetition: 1.2, temperature: 0.8, top_k: Some(9), top_p: 0.9 };
    for sampling in [Sampling { temperature: 0.0, ..Sampling::default() }, drawn] {
        let with = written(sampling, 5, Some(DType::F32));
        assert_eq!(with.len(), 43);
        assert_eq!(with, written(sampling, 5, None));
    }
    assert_eq!(written(drawn, 5, None), written(drawn, 5, None));
    assert_ne!(written(drawn, 6, None), written(drawn, 5, None));
}

#[test]
fn several_texts_are_written_at_once_each_with_draws_of_its_own() {
    let (model, sampling) = (model(), Sampling { temperature: 0.8, ..Sampling::default() });
    let mut together = Writer::new(&model, &[3, 1, 4], 3, sampling, 5, Some(DType::F32)).unwrap();
    let mut again = Writer::new(&model, &[3, 1, 4], 3, sampling, 5, None).unwrap();
    for _ in 0..40 {
        assert_eq!(together.write().unwrap(), again.write().unwrap());
    }
    let texts = together.texts();
    assert_eq!(texts[0], written(sampling, 5, Some(DType::F32)));
    assert!(texts[0] != texts[1] && texts[1] != texts[2] && texts.iter().all(|text| text.starts_with(&[3, 1, 4])));
}

#[test]
fn a_token_is_chosen_by_repetition_temperature_top_k_and_top_p() {
    // Probabilities 4/8, 2/8, 1/8, 1/8.
    let logits = [4f64, 2.0, 1.0, 1.0].map(f64::ln);
    let all = Sampling::default();
    let chosen = |sampling: Sampling, seen: &[i64], draw| sampling.choose(&logits, seen, draw);
    assert_eq!([0.0, 0.49, 0.51, 0.74, 0.76, 0.874, 0.876, 1.0].map(|d| chosen(all, &[], d)), [0, 0, 1, 1, 2, 2, 3, 3]);
    let two = Sampling { top_k: Some(2), ..all };
    assert_eq!([0.66, 0.67].map(|d| chosen(two, &[], d)), [0, 1]);
    let share = Sampling { top_p: 0.74, ..all };
    assert_eq!([0.66, 0.67, 0.999].map(|d| chosen(share, &[], d)), [0, 1, 1]);
    // Of temperature 1/2 the probabilities are 16/22, 4/22, 1/22, 1/22.
    let cold = Sampling { temperature: 0.5, ..all };
    assert_eq!([0.727, 0.728, 0.909, 0.91].map(|d| chosen(cold, &[], d)), [0, 1, 1, 2]);
    let greedy = Sampling { temperature: 0.0, repetition: 3.0, ..all };
    assert_eq!((chosen(greedy, &[], 0.9), chosen(greedy, &[0], 0.9)), (0, 1));
}

#[test]
fn settings_and_prompts_that_cannot_be_are_errors() {
    let model = model();
    let told = |prompt: &[i64], sampling| Writer::new(&model, prompt, 1, sampling, 1, None).err().unwrap().to_string();
    let all = Sampling::default();
    assert!(told(&[], all).contains("the prompt is empty"));
    assert!(told(&[31], all).contains("token 31, and the vocabulary 31"));
    assert!(told(&[-1], all).contains("token -1"));
    assert!(told(&[1], Sampling { temperature: f64::NAN, ..all }).contains("temperature"));
    assert!(told(&[1], Sampling { top_p: 0.0, ..all }).contains("top-p"));
    assert!(told(&[1], Sampling { top_k: Some(0), ..all }).contains("top-k"));
    assert!(told(&[1], Sampling { repetition: 0.0, ..all }).contains("repetition"));
}
