//! Expansions as tables: text in, text or mistake out.

use super::*;

fn known(name: &str) -> Found {
    match name {
        "x" => Found::Value("value".into()),
        "empty" => Found::Value(String::new()),
        "path" => Found::Value("/usr/local/lib.tar.gz".into()),
        "git.sha" => Found::Value("abc123".into()),
        "words" => Found::Value("one two".into()),
        "platform" => Found::Later,
        "broken" => Found::Failed("no repository".into()),
        _ => Found::Undefined,
    }
}

#[track_caller]
fn project(text: &str, expected: &str) {
    assert_eq!(expand(text, &mut known).unwrap().text, expected, "{text}");
}

#[track_caller]
fn project_fails(text: &str, at: &str, message: &str) {
    let error = expand(text, &mut known).unwrap_err();
    assert_eq!((&text[error.at.clone()], error.to_string().as_str()), (at, message), "{text}");
}

#[test]
fn a_project_knows_braces_only() {
    project("a ${x} b", "a value b");
    project("$x $ $1 \\${x}", "$x $ $1 \\value");
    project("$$ $${x} $$$${x}", "$ ${x} $${x}");
    project("${git.sha}", "abc123");
    project("ü${x}ß", "üvalueß");
    project("'${x}' \"${x}\"", "'value' \"value\"");
}

#[test]
fn operators() {
    project("${nope:-word} ${empty:-word} ${empty-word} ${x:-word}", "word word  value");
    project("${nope:+word}|${empty:+word}|${empty+word}|${x:+word}", "||word|word");
    project("${x:?no} ${empty?no}", "value ");
    project("${nope:-${nope2:-${x}}}", "value");
    project("${x:-${nope}}", "value");
    project("${broken:-word}${broken:+word}", "word");
    project("${path#*/} ${path##*/}", "usr/local/lib.tar.gz lib.tar.gz");
    project("${path%.*} ${path%%.*}", "/usr/local/lib.tar /usr/local/lib");
    project("${path%/*}", "/usr/local");
    project("${path/l/L} ${path//l/L}", "/usr/Local/lib.tar.gz /usr/LocaL/Lib.tar.gz");
    project("${path//\\//_}", "_usr_local_lib.tar.gz");
    project("${path/usr}", "//local/lib.tar.gz");
    project("${x#v?l}${x/[a-m]/_}", "uev_lue");
    project("${x#${nope:-va}}", "lue");
    project("${x%zz}${x#zz}", "valuevalue");
}

#[test]
fn a_project_says_what_is_wrong() {
    project_fails("a ${nope} b", "${nope}", "`nope` is not defined");
    project_fails("${nope", "${nope", "`${` without `}`");
    project_fails("${x:-a", "${x:-a", "`${` without `}`");
    project_fails("${}", "${}", "a name was expected after `${`");
    project_fails(
        "${x!}",
        "${x!",
        "`!` is no operator; there are `:-` `-` `:+` `+` `:?` `?` `#` `##` `%` `%%` `/` `//`",
    );
    project_fails("${nope:?set it to ${x}}", "${nope:?set it to ${x}}", "`nope` has no value: set it to value");
    project_fails("${broken}", "${broken}", "`broken` cannot be known: no repository");
    let deep = format!("{}{}", "${a:-".repeat(40), "}".repeat(40));
    assert!(expand(&deep, &mut known).unwrap_err().to_string().contains("32 levels"));
}

#[test]
fn what_comes_later_keeps_the_whole_text() {
    let found = expand("$$ ${x} ${platform%/*}", &mut known).unwrap();
    assert_eq!(found, Expanded { text: "$$ value ${platform%/*}".into(), deferred: true });
    assert_eq!(names_in("${a:-${b}} ${c}"), ["a", "b", "c"]);
}

proptest::proptest! {
    #[test]
    fn no_text_brings_it_down(text in "[a${}:?#%/\\\\'\"*x\\[\\]! é-]{0,40}") {
        let _ = expand(&text, &mut known);
    }

    #[test]
    fn doubled_dollars_are_literal(text in "[a-z${} é]{0,20}") {
        let escaped = text.replace('$', "$$");
        proptest::prop_assert_eq!(expand(&escaped, &mut known).unwrap().text, text);
    }
}
