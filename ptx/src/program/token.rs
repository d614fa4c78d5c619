//! Splits a text into words, numbers, strings and marks.

use crate::error::{ParseError, ParseErrorKind};

/// The smallest pieces of PTX.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Token<'t> {
    /// An identifier, directive or opcode, its dots included.
    Word(&'t str),
    Number(u64),
    /// A string, or a version number.
    Text(&'t str),
    Mark(char),
}

/// Splits a text; each token comes with its line, from 1.
pub(crate) fn tokenize(text: &str) -> Result<Vec<(Token<'_>, u32)>, ParseError> {
    let bytes = text.as_bytes();
    let is_word = |c: u8| c.is_ascii_alphanumeric() || b"._$%".contains(&c);
    let (mut at, mut line) = (0, 1);
    let mut tokens = Vec::new();
    while let Some(&c) = bytes.get(at) {
        let start = at;
        if c == b'\n' {
            line += 1;
            at += 1;
        } else if c.is_ascii_whitespace() {
            at += 1;
        } else if bytes[at..].starts_with(b"//") {
            at = bytes[at..].iter().position(|&c| c == b'\n').map_or(bytes.len(), |n| at + n);
        } else if bytes[at..].starts_with(b"/*") {
            let end = text[at..].find("*/").map_or(bytes.len(), |n| at + n + 2);
            line += bytes[at..end].iter().filter(|&&c| c == b'\n').count() as u32;
            at = end;
        } else if c == b'"' {
            let end = bytes[at + 1..].iter().position(|&c| c == b'"');
            let end =
                end.map(|n| at + 1 + n).ok_or(ParseError { line, kind: ParseErrorKind::End })?;
            tokens.push((Token::Text(&text[at + 1..end]), line));
            line += bytes[at..end].iter().filter(|&&c| c == b'\n').count() as u32;
            at = end + 1;
        } else if is_word(c) {
            // `::` is within words such as `shared::cta`.
            while bytes.get(at).is_some_and(|&c| is_word(c)) || bytes[at..].starts_with(b"::") {
                at += if bytes[at] == b':' { 2 } else { 1 };
            }
            let word = &text[start..at];
            tokens.push((
                match c.is_ascii_digit() {
                    false => Token::Word(word),
                    true if word.contains('.') => Token::Text(word),
                    true => Token::Number(number(word, line)?),
                },
                line,
            ));
        } else {
            // A character may be several bytes long.
            let mark = text[at..].chars().next().unwrap_or(' ');
            tokens.push((Token::Mark(mark), line));
            at += mark.len_utf8();
        }
    }
    Ok(tokens)
}

/// Reads a decimal, hexadecimal or binary number, or the bits of a floating point number (`0f3F800000`).
fn number(word: &str, line: u32) -> Result<u64, ParseError> {
    let lower = word.to_ascii_lowercase();
    let digits = lower.strip_suffix('u').unwrap_or(&lower);
    let bits = |radix: u32| move |digits: &str| u64::from_str_radix(digits, radix);
    let read = if let Some(hex) = ["0x", "0f", "0d"].iter().find_map(|p| digits.strip_prefix(p)) {
        bits(16)(hex)
    } else if let Some(binary) = digits.strip_prefix("0b") {
        bits(2)(binary)
    } else {
        digits.parse()
    };
    read.map_err(|_| ParseError { line, kind: ParseErrorKind::Number(word.to_owned()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_words_numbers_texts_and_marks() {
        let tokens = tokenize(
            "@%p1 bra $L_2; // a comment\nmov.f32 %f1, 0f3F800000; /* \n */ .version 9.5 \"x\"",
        );
        let tokens = tokens.unwrap();
        assert_eq!(tokens[1], (Token::Word("%p1"), 1));
        assert_eq!(tokens[8], (Token::Number(0x3f80_0000), 2));
        assert_eq!(tokens[11], (Token::Text("9.5"), 3));
        assert_eq!(tokens[12], (Token::Text("x"), 3));
    }
}
