//! Words as tables: text in, text or mistake out. The first table is what BuildKit makes of the same words.

use super::*;

const BACKSLASH: ShellSyntax = ShellSyntax { escape: '\\', quotes: true };

fn known(name: &str) -> Option<String> {
    let value = match name {
        "x" => "value",
        "empty" => "",
        "p" => "/usr/local/lib.tar.gz",
        "u" => "/usr",
        "l" => "l",
        "s" => r"*a?b\c}",
        "br" => "[a-z](.+|^$){2}",
        "abc" => "aXbYbZc abc",
        "u8" => "éaß",
        "é" => "e-acute",
        "a_b" => "under",
        "nl" => r"a\nb",
        "lines" => "a\nb",
        "words" => "one two",
        _ => return None,
    };
    Some(value.to_owned())
}

#[test]
fn words_are_what_buildkit_makes_of_them() {
    let table = [
        ("$x ${x} $nope ${nope} end", "value value   end"),
        ("$xy ${x}y $x-y $x.y $x/y", " valuey value-y value.y value/y"),
        ("$é ${é} $xé", "e-acute e-acute "),
        ("$1 ${1} $12a ${0} $0", "  a  "),
        ("$@ $* $# $? $- $$ $!a", "      a"),
        ("${@} ${*} ${#} ${?} ${-} ${$} ${!}", "      "),
        ("${@:-d} ${1:-d} ${$:+d}", "d d "),
        ("$", "$"),
        ("a$", "a$"),
        ("$ x", "$ x"),
        ("$+x$.x$%", "$+x$.x$%"),
        (r"\$x \${x} a\bc \\x", r"$x ${x} abc \x"),
        (r#"'$x' "$x" '\$x' "\$x" "a\b" "a\"b" 'a"b' "a'b""#, r#"$x value \$x $x a\b a"b a"b a'b"#),
        (r#""a\\b" 'a\\b' "\n" "`x`""#, r"a\b a\\b \n `x`"),
        (r"a\ b  c", "a b  c"),
        (r#""" '' x""y"#, "  xy"),
        (r"a\'b", "a'b"),
        (r#"$"x" $'x'"#, "$x $x"),
        ("${x:-w} ${x-w} ${empty:-w} ${empty-w} ${nope:-w} ${nope-w}", "value value w  w w"),
        ("${x:+w} ${x+w} ${empty:+w} ${empty+w} ${nope:+w} ${nope+w}", "w w  w  "),
        ("${x:?m} ${x?m} ${empty?m}", "value value "),
        ("${nope:-${x}} ${nope:-$x} ${nope:-${nope2:-${x}}}", "value value value"),
        (r#"${nope:-'a b'} ${nope:-"a b"} ${nope:-a b}"#, "a b a b a b"),
        (r#"${nope:-"}"} ${nope:-\}} ${nope:-'}'}"#, "} } }"),
        ("${nope:-{}}", "{}"),
        ("${nope:-a:b/c#d%e}", "a:b/c#d%e"),
        ("${nope:-$nope}", ""),
        (r#"${nope:-\$x} ${nope:-"\$x"}"#, "$x $x"),
        (
            "${p#*/} ${p##*/} ${p%.*} ${p%%.*} ${p%/*} ${p%%/*}",
            "usr/local/lib.tar.gz lib.tar.gz /usr/local/lib.tar /usr/local/lib /usr/local ",
        ),
        (
            "${p#/usr} ${p#usr} ${p%gz} ${p%tar}",
            "/local/lib.tar.gz /usr/local/lib.tar.gz /usr/local/lib.tar. /usr/local/lib.tar.gz",
        ),
        (
            r#"${p#"/usr"} ${p#'/usr'} ${p#$u} ${p#${u}} ${p#${nope:-/usr}}"#,
            "/local/lib.tar.gz /local/lib.tar.gz /local/lib.tar.gz /local/lib.tar.gz /local/lib.tar.gz",
        ),
        (
            r"${p#\/usr} ${p#/???/} ${p#?} ${p%?} ${p%??} ${p##} ${p%%} ${p#} ${p%}",
            "/local/lib.tar.gz local/lib.tar.gz usr/local/lib.tar.gz /usr/local/lib.tar.g /usr/local/lib.tar. /usr/local/lib.tar.gz /usr/local/lib.tar.gz /usr/local/lib.tar.gz /usr/local/lib.tar.gz",
        ),
        ("${p##*l} ${p#*l} ${p%l*} ${p%%l*}", "ib.tar.gz ocal/lib.tar.gz /usr/local/ /usr/"),
        (
            r"${s#\*} ${s##\*} ${s%\?} ${s#*\*} ${s%\**} ${s#\\} ${s/\\/-} ${s//\*/S} ${s//\?/Q}",
            r"a?b\c} a?b\c} *a?b\c} a?b\c}  *a?b\c} *a?b-c} Sa?b\c} *aQb\c}",
        ),
        (r"${s%\}}", r"*a?b\c"),
        (
            "${br#[a-z]} ${br#[} ${br/[a-z]/x} ${br/]/x} ${br//[/(}",
            "(.+|^$){2} a-z](.+|^$){2} x(.+|^$){2} [a-zx(.+|^$){2} (a-z](.+|^$){2}",
        ),
        (
            "${br#(} ${br/./_} ${br/|/_} ${br/^/_} ${br//+/_} ${br%.*}",
            "[a-z](.+|^$){2} [a-z](_+|^$){2} [a-z](.+_^$){2} [a-z](.+|_$){2} [a-z](._|^$){2} [a-z](",
        ),
        (
            "${p/l/L} ${p//l/L} ${p/zz/L} ${p//zz/L}",
            "/usr/Local/lib.tar.gz /usr/LocaL/Lib.tar.gz /usr/local/lib.tar.gz /usr/local/lib.tar.gz",
        ),
        (
            r"${p/usr/} ${p//l/} ${p//\//_} ${p/\//_} ${p/u*l/X} ${p//u*l/X} ${p/*/X} ${p//*/X} ${p//?/X}",
            "//local/lib.tar.gz /usr/oca/ib.tar.gz _usr_local_lib.tar.gz _usr/local/lib.tar.gz /Xib.tar.gz /Xib.tar.gz X X XXXXXXXXXXXXXXXXXXXXX",
        ),
        (
            r#"${p/l/a\/b} ${p/l/a/b} ${p//l/a\}b} ${p//l/a\b} ${p/l/'a b'} ${p/l/"a b"}"#,
            r"/usr/a\/bocal/lib.tar.gz /usr/a/bocal/lib.tar.gz /usr/a\}bocaa\}b/a\}bib.tar.gz /usr/a\bocaa\b/a\bib.tar.gz /usr/a bocal/lib.tar.gz /usr/a bocal/lib.tar.gz",
        ),
        (
            r"${p/l/$x} ${p//l/${x}} ${p//l/'$0'} ${p//l/<\$0>} ${p/l/<\$0>} ${p//l/'${0}'} ${p//l/'$1'} ${p//l/'$$'} ${p//l/'$'} ${p//l/'$a b'}",
            r"/usr/valueocal/lib.tar.gz /usr/valueocavalue/valueib.tar.gz /usr/local/lib.tar.gz /usr/<\l>oca<\l>/<\l>ib.tar.gz /usr/<\$0>ocal/lib.tar.gz /usr/local/lib.tar.gz /usr/oca/ib.tar.gz /usr/$oca$/$ib.tar.gz /usr/$oca$/$ib.tar.gz /usr/ boca b/ bib.tar.gz",
        ),
        (
            r#"${p/'l'/L} ${p/"l"/L} ${p/$l/L} ${p/${l}/L} ${p/${nope:-l}/L}"#,
            "/usr/Local/lib.tar.gz /usr/Local/lib.tar.gz /usr/Local/lib.tar.gz /usr/Local/lib.tar.gz /usr/Local/lib.tar.gz",
        ),
        ("${p//${nope}/-}", "-/-u-s-r-/-l-o-c-a-l-/-l-i-b-.-t-a-r-.-g-z-"),
        ("${p///x}", "x/xuxsxrx/xlxoxcxaxlx/xlxixbx.xtxaxrx.xgxzx"),
        ("${empty#a} ${empty%a} ${empty/a/b} ${empty//*/b} ${nope#a} ${nope/a/b} ${nope//*/b}", "   b   b"),
        ("${nl#a*b} ${nl#a?b} ${nl%b*} ${nl//?/.} ${nl/*/X} ${nl//*/X}", r" a\nb a\n .... X X"),
        (
            "${abc#a*b*c} ${abc##a*b*c} ${abc%c*} ${abc%%b*} ${abc/b*b/X} ${abc//b/} ${abc//a?/X}",
            " abc  aXbYbZc ab aX aXXc aXYZc ac XbYbZc Xc",
        ),
        ("${u8#é} ${u8#?} ${u8%?} ${u8//?/x} ${u8/ß/ss}", "aß aß éa xxx éass"),
        (r#"${p%"*"} ${p#'*'/}"#, "/usr/local/lib.tar.gz usr/local/lib.tar.gz"),
        (r#"${s#"\*"}"#, r"*a?b\c}"),
        (r"${s#'\*'}", r"a?b\c}"),
        (r#"${s/"\*"/x}"#, "*a?bx"),
        ("a${x}b${empty}c$nope-d", "avaluebc-d"),
        (r#""${nope:-"a"}" "${nope:-'a'}" '${x}' "$(x)" `x` "${x:+"q r"}""#, "a a ${x} $(x) `x` q r"),
        (r#""${p#"*/"}" "${p#*/}""#, "usr/local/lib.tar.gz usr/local/lib.tar.gz"),
        ("$x$x ${x}${x}$x", "valuevalue valuevaluevalue"),
        (r"${nope:-${p#*/}} ${nope:-${p//\//\\}}", r"usr/local/lib.tar.gz \\usr\\local\\lib.tar.gz"),
        ("${x:+${p%${p#????}}}", "/usr"),
        ("${x:-a}} {${x}}", "value} {value}"),
        ("#x # x", "#x # x"),
        ("${a_b} $a_b ${a-b}", "under under b"),
        ("~ * ? [ ] a=b", "~ * ? [ ] a=b"),
        (r#"${x:+\\} ${x:+\a} ${nope:-"\a"} ${nope:-'\a'} ${nope:-\\\\}"#, r"\ a \a \a \\"),
    ];
    for (text, expected) in table {
        assert_eq!(shell_word(text, BACKSLASH, &mut known).as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn what_buildkit_refuses_is_refused() {
    let table = [
        r#"""#,
        "'",
        r#""a"#,
        "'a",
        "${empty:?m}",
        "${nope:?m}",
        "${nope?m}",
        "${nope?}",
        "${nope:?}",
        "${nope:?set $x please}",
        "${x:-${nope:?m}}",
        "${x:=w}",
        "${x=w}",
        "${x:#v}",
        "${x:%v}",
        "${x:/a/b}",
        "${x:}",
        "${x:-",
        "${x",
        "${x:",
        "${",
        "${}",
        "${{x}}",
        "${:x}",
        "${ x}",
        "${x }",
        "${x!}",
        "${x@Q}",
        "${x^^}",
        "${x,,}",
        "${!x}",
        "${#x}",
        "${x:0:2}",
        "${x:2}",
        "${x[0]}",
        "${x;}",
        r"${s#\a}",
        r"${s/\a/b}",
        "${p/usr}",
        "${p//}",
        "${p/}",
        "${p/a",
        "${p/a/",
        "${p/a/b",
    ];
    for text in table {
        let result = shell_word(text, BACKSLASH, &mut known);
        assert!(result.is_err(), "{text}: {result:?}");
    }
}

#[test]
fn mistakes_have_a_place_and_a_sentence() {
    let operators = "there are `:-` `-` `:+` `+` `:?` `?` `#` `##` `%` `%%` `/` `//`";
    let table = [
        ("a ${x:=w} b", "${x:=", format!("`:=` is no operator; {operators}")),
        (
            "a ${#x}",
            "${#x",
            format!(
                "`${{#name}}`, the length of a value, does not exist here; {}",
                operators.replace("there are", "after the name may stand")
            ),
        ),
        ("a ${x b", "${x b", "`${` without `}`".into()),
        ("a ${x:-b", "${x:-b", "`${` without `}`".into()),
        ("a ${x:-${nope}", "${x:-${nope}", "`${` without `}`".into()),
        ("${p/a}", "${p/a}", "`/` and a replacement were expected after the pattern".into()),
        (r"${p#\a}", r"${p#\a}", r"`\a` means nothing in a pattern; there are `\*` `\?` `\\` `\/` `\}`".into()),
        ("${}", "${}", "a name was expected after `${`".into()),
        ("a ${nope:?set it to $x}", "${nope:?set it to $x}", "`nope` has no value: set it to value".into()),
        ("a 'b", "'b", "a quote is never closed".into()),
        ("a ${x:-\"b} c", "\"b} c", "a quote is never closed".into()),
    ];
    for (text, at, message) in table {
        let error = shell_word(text, BACKSLASH, &mut known).unwrap_err();
        assert_eq!((&text[error.at.clone()], error.to_string()), (at, message), "{text}");
    }
    let deep = format!("{}{}", "${nope:-".repeat(40), "}".repeat(40));
    assert!(shell_word(&deep, BACKSLASH, &mut known).unwrap_err().to_string().contains("32 levels"));
    let large = |name: &str| (name == "x").then(|| "ab".repeat(1 << 19));
    for text in ["$x$x", "${x#????????}", "${x//a/$x}"] {
        let error = shell_word(text, BACKSLASH, &mut { large }).unwrap_err();
        assert!(matches!(error.kind, ExpandErrorKind::TooLarge(_)), "{text}: {error}");
    }
}

#[test]
fn the_escape_may_be_a_backtick_and_quotes_plain() {
    let backtick = ShellSyntax { escape: '`', quotes: true };
    let table = [("`$x \\$x", "$x \\value"), ("a` b \"`$x`\"\"", "a b $x\""), (r"${s#\*}", r"a?b\c}")];
    for (text, expected) in table {
        assert_eq!(shell_word(text, backtick, &mut known).as_deref(), Ok(expected), "{text}");
    }
    let document = ShellSyntax { escape: '\\', quotes: false };
    let table = [
        ("'$x' \"$x\" it's", "'value' \"value\" it's"),
        (r"\$x \n \\ \a", r"$x n \ a"),
        ("${nope:-'a'}\n$x\n", "'a'\nvalue\n"),
    ];
    for (text, expected) in table {
        assert_eq!(shell_word(text, document, &mut known).as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn stars_stop_at_the_end_of_a_line() {
    let table =
        [("${lines#a*b}", "a\nb"), ("${lines%?b}", "a\nb"), ("${lines//?/.}", ".\n."), ("${lines/*/X}", "X\nb")];
    for (text, expected) in table {
        assert_eq!(shell_word(text, BACKSLASH, &mut known).as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn words_split_outside_quotes() {
    let table: [(&str, &[&str]); 7] = [
        ("a b  c", &["a", "b", "c"]),
        ("$words x", &["one", "two", "x"]),
        ("\"$words\" 'p q'r", &["one two", "p qr"]),
        ("\"\" a", &["a"]),
        ("  ", &[]),
        ("${nope:-u v} ${nope:-'u v'}", &["u", "v", "u", "v"]),
        (r"a\ b", &["a b"]),
    ];
    for (text, expected) in table {
        assert_eq!(shell_words(text, BACKSLASH, &mut known).unwrap(), expected, "{text}");
    }
}

proptest::proptest! {
    #[test]
    fn no_text_brings_it_down(text in "[a${}:?#%/\\\\'\"*x\\[\\]! é-]{0,40}", quotes: bool) {
        let syntax = ShellSyntax { escape: '\\', quotes };
        let one = shell_word(&text, syntax, &mut known);
        let many = shell_words(&text, syntax, &mut known);
        proptest::prop_assert_eq!(one.is_ok(), many.is_ok());
    }

    #[test]
    fn plain_text_stays(text in "[^$'\"\\\\]{0,40}") {
        proptest::prop_assert_eq!(shell_word(&text, BACKSLASH, &mut known), Ok(text.clone()));
        let words: Vec<&str> = text.split_whitespace().collect();
        proptest::prop_assert_eq!(shell_words(&text, BACKSLASH, &mut known).unwrap(), words);
    }

    #[test]
    fn what_is_escaped_stays(text in ".{0,40}") {
        let escaped: String = text.chars().flat_map(|c| ['\\', c]).collect();
        proptest::prop_assert_eq!(shell_word(&escaped, BACKSLASH, &mut known), Ok(text));
    }
}
