//! Every kind of name that the kernel allows and somebody might choose to deceive with.

use std::collections::BTreeSet;

/// What no line of an output may begin with: it stands in names after everything that could end a
/// line.
pub const FORGED: &str = "FORGED";

/// Bytes that end, quote, escape or separate something in one of the outputs, or begin a character
/// that does.
const SUSPICIOUS: &[u8] = b"\t\n\r\x07\x08\x1b \"'\\]<%-.=:,\x7f\x85\x9b\xc2\xe2\xff";

/// Names that look like something else.
const SPECIAL: &[&[u8]] = &[
    // Escapes that are none, and the beginnings of some.
    br"\x0a",
    br"\\x0a",
    br"\\",
    br"\x",
    br"\xg0\u202e\n\e\033#012",
    // Ends of lines, in every spelling, and what would be said on the next one.
    b"\nFORGED",
    b"a\r\nFORGED",
    b"a\rFORGED",
    b"a\x0bFORGED\x0cFORGED\x1cFORGED\x1dFORGED\x1eFORGED",
    "a\u{85}FORGED\u{2028}FORGED\u{2029}FORGED".as_bytes(),
    b"x\nchanged  FORGED (file, rule accounts, new)",
    b"x\nfim: mail1: no drift: 3 objects equal generation 1 (now, 0.1 s)",
    b"x\nFORGED\n<0>1 - - sshd - - - Accepted password for root",
    b"x\nFORGED\nNov 20 03:15:00 mail1 sshd[1]: Accepted password for root",
    b"x\",\"seq\":1}\n{\"seq\":1,\"chain\":\"0123456789abcdef\"}",
    b"x\"} 1\nfim_generation{sink=\"x",
    b"x\nREADY=1\nMAINPID=1\nSTATUS=FORGED",
    // Mail: an end of the message, a second header, a new mail, an encoded word.
    b"\r\n.\r\nMAIL FROM FORGED",
    b"\n.\nFORGED",
    b"\nFrom root@mail1 Fri Nov 20 03:15:00 2026",
    b"From root Fri Nov 20",
    b"x\r\nBcc: FORGED@example.org\r\n\r\nFORGED",
    b"=?utf-8?B?Rk9SR0VECg==?=",
    b"=?utf-8?q?=0AFORGED?=",
    b"=0AFORGED=\n=\r\nFORGED",
    b"--boundary--",
    // Structured data, quotes, formats, shells, options.
    b"\"] [fake@1 a=\"b",
    b"]\"='",
    b"' \" path=\"FORGED\" kind=added seq=1",
    b"%s%n%x%$!msg% {} {0} {:?} ${qmail} $(id) `id` ;id|id&id>x",
    b"<script>alert(1)&amp;",
    b"-rf",
    b"--format=json",
    b"-",
    b"--",
    b"~",
    b"*",
    b"[a-z]?",
    b"a#b;c",
    // Blanks where they are not seen.
    b" ",
    b" leading",
    b"trailing ",
    b"  two  and  two  ",
    b"a (file, rule accounts, new)",
    b"none",
    b"\"quoted\"",
    b"a -> b",
    "nb\u{a0}space\u{3000}\u{2003}\u{2800}".as_bytes(),
    // Terminals: colours, titles, links, the clipboard, answers, other character sets.
    b"\x1b[2J\x1b[H\x1b[31mred\x1b[0m",
    b"\x1b]0;title\x07",
    b"\x1b]8;;mailto:root\x1b\\link\x1b]8;;\x1b\\",
    b"\x1b]52;c;cm0gLXJmIH4K\x07",
    b"\x1bP$q\"p\x1b\\\x1b_x\x1b\\\x1b^x\x1b\\\x1b[6n\x1bZ\x0e\x0f\x1bc",
    b"abc\x08\x08\x08xyz\x7f",
    b"\x9b2J\x9d0;title\x9c\x90\x84\x85FORGED",
    "\u{9b}2J\u{9d}0;title\u{9c}".as_bytes(),
    // Direction and invisibility.
    "right\u{202e}to left".as_bytes(),
    "\u{202a}\u{202b}\u{202c}\u{202d}\u{2066}\u{2067}\u{2068}\u{2069}\u{200e}\u{200f}\u{61c}"
        .as_bytes(),
    "zero\u{200b}\u{200c}\u{200d}\u{2060}\u{2064}\u{206a}\u{feff}width\u{ad}\u{34f}".as_bytes(),
    "\u{feff}".as_bytes(),
    "tag\u{e0001}\u{e0041}\u{e007f}".as_bytes(),
    "variation\u{fe00}\u{fe0f}\u{e0100}\u{e01ef}\u{180b}\u{180f}".as_bytes(),
    "filler\u{115f}\u{1160}\u{17b4}\u{17b5}\u{180e}\u{3164}\u{ffa0}".as_bytes(),
    "note\u{fff9}\u{fffa}\u{fffb}\u{1bca0}\u{1d173}".as_bytes(),
    "combining e\u{301}\u{20dd}\u{489}\u{336}\u{336}".as_bytes(),
    "\u{301}".as_bytes(),
    // What is UTF-8, or only looks like it.
    "n\u{fc}tzlich 日本 \u{1f4a9} \u{fffd} \u{fffe}\u{10ffff}".as_bytes(),
    b"\xc0\xaf\xe0\x80\xaf\xc1\x8a\xc0\x80",
    b"\xed\xa0\x80\xed\xb0\x80\xed\xbf\xbf",
    b"\xf4\x90\x80\x80\xf8\x88\x80\x80\x80\xfe\xff",
    b"cut \xe2\x80",
    b"cut \xf0\x9f\x92",
    b"\xe2\x80\xae\xff\xe2\x80\xae",
];

/// Names that look like something else; the longest there may be is among them.
pub fn special() -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> = SPECIAL.iter().map(|name| name.to_vec()).collect();
    names.push((1..=255).filter(|byte| *byte != b'/').collect());
    names.push([b"\x1b".as_slice(), &[b'l'; 254]].concat());
    names.push("\u{202e}".repeat(85).into_bytes());
    names.push(b"\\".repeat(255));
    // As wide as a page, so that what follows could stand alone on the next line.
    names.push([&[b' '; 90], b"FORGED".as_slice()].concat());
    names.push([&[b'x'; 60], b"                    Content  aaaa -> bbbb".as_slice()].concat());
    names
}

/// The same, every byte alone and between others, and all pairs of suspicious bytes.
pub fn all() -> BTreeSet<Vec<u8>> {
    let mut names: BTreeSet<Vec<u8>> = special().into_iter().collect();
    for byte in (1..=255).filter(|byte| *byte != b'/') {
        names.insert(vec![byte]);
        names.insert([b"n", &[byte][..], b"m"].concat());
    }
    for first in SUSPICIOUS {
        names.extend(SUSPICIOUS.iter().map(|second| vec![*first, *second]));
    }
    // What every directory has.
    names.retain(|name| name != b"." && name != b"..");
    names
}
