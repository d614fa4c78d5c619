//! Lines that torch gave: a name, then numbers.

/// Gives the numbers of the line that begins with `name`.
pub(crate) fn line(text: &str, name: &str) -> Vec<f64> {
    let start = format!("{name} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&start));
    let line = line.unwrap_or_else(|| panic!("no line begins with {name}"));
    line.split(' ').map(|number| number.parse().expect("a number")).collect()
}

/// Compares numbers with those of a line.
pub(crate) fn compare(
    text: &str,
    name: &str,
    got: impl IntoIterator<Item = f64>,
    (atol, rtol): (f64, f64),
) {
    let (got, want): (Vec<_>, _) = (got.into_iter().collect(), line(text, name));
    assert_eq!(got.len(), want.len(), "{name}");
    for (place, (got, want)) in got.iter().zip(&want).enumerate() {
        let close = (got - want).abs() <= atol + rtol * want.abs() || got.is_nan() && want.is_nan();
        assert!(close, "{name}, number {place}: {got}, not {want}");
    }
}
