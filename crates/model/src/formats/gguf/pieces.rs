//! Merges of a SentencePiece vocabulary, which a file has scores for in their place.

use std::collections::BTreeMap;

/// The pairs that are joined, the best first, as transformers makes them of a vocabulary with scores: each piece of all
/// that two other pieces make.
pub(super) fn merges(tokens: &[String], scores: &[f64]) -> Vec<(String, String)> {
    let ids: BTreeMap<&str, usize> =
        tokens.iter().enumerate().map(|(id, token)| (token.as_str(), id)).collect();
    let mut all: Vec<(f64, usize, [usize; 2])> = Vec::new();
    for (id, (token, score)) in tokens.iter().zip(scores).enumerate() {
        let mut own: Vec<[usize; 2]> = token
            .char_indices()
            .skip(1)
            .filter_map(|(at, _)| {
                let (left, right) = token.split_at(at);
                Some([*ids.get(left)?, *ids.get(right)?])
            })
            .collect();
        own.sort_unstable();
        all.extend(own.into_iter().map(|pair| (*score, id, pair)));
    }
    // Of equal scores the order of the vocabulary.
    all.sort_by(|one, other| other.0.total_cmp(&one.0));
    let text = |id: usize| tokens.get(id).cloned().unwrap_or_default();
    all.into_iter().map(|(_, _, [left, right])| (text(left), text(right))).collect()
}
