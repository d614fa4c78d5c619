//! Where an element lies, as an expression.

/// Returns the offset of element `index`, counted over axes of these sizes, slowest first, each with its stride.
pub(crate) fn of(index: &str, axes: &[(usize, usize)]) -> String {
    let mut terms = Vec::new();
    let mut inner = 1;
    for (place, &(size, stride)) in axes.iter().enumerate().rev() {
        if size > 1 && stride > 0 {
            let quotient = if inner == 1 { index.to_owned() } else { format!("{index} / {inner}") };
            let is_slowest = axes[..place].iter().all(|&(size, _)| size == 1);
            let rest = if is_slowest { quotient } else { format!("{quotient} % {size}") };
            terms.push(if stride == 1 { rest } else { format!("{rest} * {stride}") });
        }
        inner *= size;
    }
    match terms.is_empty() {
        true => "0".to_owned(),
        false => terms.into_iter().rev().collect::<Vec<_>>().join(" + "),
    }
}

#[cfg(test)]
mod tests {
    use super::of;

    #[test]
    fn axes_become_quotients_and_remainders() {
        assert_eq!(of("i", &[]), "0");
        assert_eq!(of("i", &[(6, 1)]), "i");
        assert_eq!(of("i", &[(2, 3), (3, 1)]), "i / 3 * 3 + i % 3");
        assert_eq!(of("i", &[(2, 0), (3, 1), (1, 9), (4, 3)]), "i / 4 % 3 + i % 4 * 3");
    }
}
