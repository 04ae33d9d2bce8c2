//! Every expansion and every message, on tokens.

use super::{Attribute, attribute};
use proc_macro2::TokenStream;
use quote::quote;
use syn::{Expr, ExprLit, Item, Lit, Stmt};

/// The expansion as text, without the differences in spacing that token printing has.
fn expand(which: Attribute, args: TokenStream, item: TokenStream) -> String {
    attribute(which, args, item).to_string().replace(' ', "")
}

/// The messages of all `compile_error!`s, in order. Fails if the expansion is not made of whole
/// items, or if the function is missing from it.
fn errors(which: Attribute, args: TokenStream, item: TokenStream) -> Vec<String> {
    let file: syn::File = syn::parse2(attribute(which, args, item)).expect("whole items");
    let mut messages = Vec::new();
    let mut functions = 0;
    for item in file.items {
        match item {
            Item::Macro(call) => messages.push(message(call.mac.tokens)),
            Item::Fn(function) => {
                functions += 1;
                assert!(function.sig.asyncness.is_none(), "left async");
                let [Stmt::Expr(Expr::Block(_), None)] = &function.block.stmts[..] else {
                    panic!("the function is not one block");
                };
            }
            _ => panic!("an item that is neither"),
        }
    }
    assert_eq!(
        functions, 1,
        "the function must stay, or `main` goes missing beside the error"
    );
    messages
}

fn message(tokens: TokenStream) -> String {
    match syn::parse2(tokens).expect("a literal") {
        Expr::Lit(ExprLit {
            lit: Lit::Str(text),
            ..
        }) => text.value(),
        _ => panic!("not a string"),
    }
}

/// The one message that `args` give on a valid function.
fn error(which: Attribute, args: TokenStream) -> String {
    let mut all = errors(which, args, quote! { async fn f() {} });
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

fn main_with(args: TokenStream) -> String {
    expand(Attribute::Main, args, quote! { async fn main() {} })
}

fn test_with(args: TokenStream) -> String {
    expand(Attribute::Test, args, quote! { async fn t() {} })
}

#[test]
fn defaults_are_those_of_tokio() {
    let main = main_with(quote! {});
    assert!(
        main.contains("gort::runtime::Builder::new_multi_thread().enable_all().build().expect("),
        "{main}"
    );
    assert!(main.contains(".block_on(async{"), "{main}");
    assert!(!main.contains("core::prelude::v1::test"), "{main}");

    let test = test_with(quote! {});
    assert!(
        test.starts_with("#[::core::prelude::v1::test]fnt(){"),
        "{test}"
    );
    assert!(
        test.contains("gort::runtime::Builder::new_current_thread().enable_all()"),
        "{test}"
    );
}

#[test]
fn flavors() {
    for run in [main_with, test_with] {
        let current = run(quote! { flavor = "current_thread" });
        assert!(
            current.contains("Builder::new_current_thread().enable_all()"),
            "{current}"
        );
        let multi = run(quote! { flavor = "multi_thread" });
        assert!(
            multi.contains("Builder::new_multi_thread().enable_all()"),
            "{multi}"
        );
        let three = run(quote! { flavor = "multi_thread", worker_threads = 3, });
        assert!(
            three.contains("Builder::new_multi_thread().worker_threads(3).enable_all()"),
            "{three}"
        );
    }
    let two = main_with(quote! { worker_threads = 2 });
    assert!(
        two.contains("Builder::new_multi_thread().worker_threads(2).enable_all()"),
        "{two}"
    );
}

#[test]
fn crate_is_renamed() {
    let renamed = main_with(quote! { crate = "tokio" });
    assert!(
        renamed.contains("returntokio::runtime::Builder::"),
        "{renamed}"
    );
    let nested = main_with(quote! { crate = "::facade::rt" });
    assert!(
        nested.contains("return::facade::rt::runtime::Builder::"),
        "{nested}"
    );
    let own = main_with(quote! { crate = "crate" });
    assert!(own.contains("returncrate::runtime::Builder::"), "{own}");
}

#[test]
fn attributes_and_signature_stay() {
    let item = quote! {
        /// What it does.
        #[should_panic(expected = "boom")]
        #[ignore = "slow"]
        pub(crate) async unsafe fn run<'a, T: Send>(x: &'a T) -> Result<T, String> where T: Clone {
            #![allow(unused)]
            Ok(x.clone())
        }
    };
    let out = expand(Attribute::Test, quote! {}, item);
    let head = "#[should_panic(expected=\"boom\")]#[ignore=\"slow\"]#[allow(unused)]\
                #[::core::prelude::v1::test]\
                pub(crate)unsafefnrun<'a,T:Send>(x:&'aT)->Result<T,String>whereT:Clone{";
    assert!(out.contains(head), "{out}");
    assert!(out.contains("Option::<Result<T,String>>"), "{out}");
    assert!(out.contains("Ok(x.clone())}"), "{out}");
}

#[test]
fn outputs_that_cannot_be_declared_are_left_to_inference() {
    let never = expand(
        Attribute::Main,
        quote! {},
        quote! { async fn main() -> ! { loop {} } },
    );
    assert!(never.contains(".block_on(async{loop{}})"), "{never}");
    let hidden = quote! { async fn f() -> Result<impl Sized, ()> { Ok(1) } };
    let hidden = expand(Attribute::Main, quote! {}, hidden);
    assert!(hidden.contains(".block_on(async{Ok(1)})"), "{hidden}");
}

#[test]
fn a_body_that_does_not_parse_is_kept() {
    // What an editor sees while the user is typing.
    let out = expand(
        Attribute::Main,
        quote! {},
        quote! { async fn main() { x. } },
    );
    assert!(out.contains("x.}"), "{out}");
}

#[test]
fn not_async() {
    let all = errors(Attribute::Main, quote! {}, quote! { fn main() {} });
    assert_eq!(
        all,
        ["`#[gort::main]` needs an `async fn`: write `async fn main`"]
    );
    let all = errors(Attribute::Test, quote! {}, quote! { fn works() {} });
    assert_eq!(
        all,
        ["`#[gort::test]` needs an `async fn`: write `async fn works`"]
    );
}

#[test]
fn not_a_function() {
    let out = attribute(Attribute::Main, quote! {}, quote! { struct S; });
    let file: syn::File = syn::parse2(out).unwrap();
    let [Item::Struct(_), Item::Macro(error)] = &file.items[..] else {
        panic!("the struct must stay, with an error after it");
    };
    let message = message(error.mac.tokens.clone());
    assert!(
        message.starts_with("`#[gort::main]` belongs on an `async fn`: "),
        "{message}"
    );
}

#[test]
fn main_with_arguments() {
    let all = errors(
        Attribute::Main,
        quote! {},
        quote! { async fn main(x: u8) {} },
    );
    assert_eq!(
        all,
        ["`main` takes no arguments; read the command line with `std::env::args`"]
    );
    // Another function may take some.
    assert!(
        errors(
            Attribute::Main,
            quote! {},
            quote! { async fn run(x: u8) {} }
        )
        .is_empty()
    );
}

#[test]
fn second_test_attribute() {
    for attr in [
        quote! { #[test] },
        quote! { #[::core::prelude::v1::test] },
        quote! { #[std::prelude::rust_2024::test] },
    ] {
        let all = errors(Attribute::Test, quote! {}, quote! { #attr async fn t() {} });
        assert_eq!(
            all,
            ["`#[gort::test]` already makes this a test; remove `#[test]`"]
        );
    }
    assert!(
        errors(
            Attribute::Test,
            quote! {},
            quote! { #[other::test] async fn t() {} }
        )
        .is_empty()
    );
}

#[test]
fn worker_threads_mistakes() {
    let test = |args| error(Attribute::Test, args);
    assert_eq!(
        test(quote! { worker_threads = 2 }),
        "`worker_threads` needs the multi-thread scheduler: write \
         `#[gort::test(flavor = \"multi_thread\", worker_threads = 2)]`, or remove it"
    );
    let main = |args| error(Attribute::Main, args);
    assert!(
        main(quote! { flavor = "current_thread", worker_threads = 4 })
            .contains("worker_threads = 4)]`")
    );
    assert!(main(quote! { worker_threads = 0 }).starts_with("`worker_threads` is at least 1"));
    for bad in [quote! { "2" }, quote! { 2.0 }, quote! { true }] {
        let message = main(quote! { worker_threads = #bad });
        assert_eq!(
            message,
            "`worker_threads` is a number, as in `worker_threads = 2`"
        );
    }
    let huge = main(quote! { worker_threads = 99999999999999999999999 });
    assert!(
        huge.starts_with("`worker_threads` is a number, as in `worker_threads = 2`: "),
        "{huge}"
    );
    assert!(
        main(quote! { worker_threads = 1 + 1 }).starts_with("`worker_threads` needs a literal")
    );
    assert!(main(quote! { worker_threads = -1 }).starts_with("`worker_threads` needs a literal"));
    assert_eq!(
        main(quote! { worker_threads }),
        "`worker_threads` needs a value, as in `worker_threads = 2`"
    );
    assert_eq!(
        main(quote! { core_threads = 2 }),
        "the argument is called `worker_threads`"
    );
}

#[test]
fn flavor_mistakes() {
    let main = |args| error(Attribute::Main, args);
    assert_eq!(
        main(quote! { flavor = "fast" }),
        "unknown flavor \"fast\"; it is \"multi_thread\" or \"current_thread\""
    );
    assert_eq!(
        main(quote! { flavor = 1 }),
        "`flavor` is a string: \"multi_thread\" or \"current_thread\""
    );
    assert_eq!(
        main(quote! { flavor = "threaded_scheduler" }),
        "this flavor is called \"multi_thread\""
    );
    assert_eq!(
        main(quote! { flavor = "single_thread" }),
        "this flavor is called \"current_thread\""
    );
    assert!(
        main(quote! { flavor = "local" }).starts_with("the flavor \"local\" is not supported yet")
    );
    assert_eq!(
        main(quote! { multi_thread }),
        "write `flavor = \"multi_thread\"`"
    );
    assert_eq!(
        main(quote! { current_thread }),
        "write `flavor = \"current_thread\"`"
    );
    assert_eq!(
        main(quote! { flavor }),
        "`flavor` needs a value: `flavor = \"multi_thread\"` or `flavor = \"current_thread\"`"
    );
}

#[test]
fn crate_mistakes() {
    let main = |args| error(Attribute::Main, args);
    assert_eq!(
        main(quote! { crate = 1 }),
        "`crate` is a path in quotes, as in `crate = \"tokio\"`"
    );
    assert_eq!(
        main(quote! { crate = tokio }),
        "`crate` needs a literal: an attribute cannot evaluate expressions; use `gort::runtime::Builder` for values known at run time"
    );
    assert_eq!(
        main(quote! { crate = "a b" }),
        "`crate` is a path in quotes, as in `crate = \"tokio\"`: \"a b\" is none"
    );
    assert_eq!(
        main(quote! { crate }),
        "`crate` needs a value, as in `crate = \"tokio\"`"
    );
}

#[test]
fn later_arguments_are_refused_not_ignored() {
    for later in [
        quote! { start_paused = true },
        quote! { unhandled_panic = "ignore" },
        quote! { name = "rt" },
    ] {
        let message = error(Attribute::Test, later);
        assert!(
            message.contains("is not supported yet: gort will have it in a later version"),
            "{message}"
        );
    }
    assert!(
        error(Attribute::Test, quote! { start_paused })
            .contains("`start_paused` is not supported yet")
    );
}

#[test]
fn unknown_and_malformed_arguments() {
    let takes = "`#[gort::test]` takes `flavor`, `worker_threads` and `crate`";
    let test = |args| error(Attribute::Test, args);
    assert_eq!(
        test(quote! { threads = 2 }),
        format!("unknown argument `threads`; {takes}")
    );
    assert_eq!(
        test(quote! { threads }),
        format!("unknown argument `threads`; {takes}")
    );
    assert_eq!(
        test(quote! { "multi_thread" }),
        format!("expected an argument; {takes}")
    );
    assert_eq!(
        test(quote! { flavor = "multi_thread" worker_threads = 2 }),
        "expected `,`"
    );
}

#[test]
fn duplicates() {
    let repeated = [
        (
            quote! { flavor = "multi_thread", flavor = "multi_thread" },
            "flavor",
        ),
        (
            quote! { worker_threads = 2, worker_threads = 2 },
            "worker_threads",
        ),
        (quote! { crate = "a", crate = "b" }, "crate"),
    ];
    for (args, name) in repeated {
        assert_eq!(
            error(Attribute::Main, args),
            format!("`{name}` is given twice; keep one of them")
        );
    }
}

#[test]
fn all_mistakes_at_once() {
    let args = quote! { flavor = "fast", worker_threads = 0, colour = "red" };
    let all = errors(Attribute::Test, args, quote! { #[test] fn t() {} });
    let starts = [
        "`#[gort::test]` needs an",
        "unknown flavor",
        "`worker_threads` is at least 1",
        "unknown argument `colour`",
    ];
    assert_eq!(all.len(), starts.len(), "{all:?}");
    for (message, start) in all.iter().zip(starts) {
        assert!(message.starts_with(start), "{message}");
    }
}

#[test]
fn the_crate_path_survives_another_mistake() {
    // Otherwise the one mistake would drag "use of unresolved module `gort`" behind it.
    let out = main_with(quote! { crate = "tokio", flavor = "fast" });
    assert!(out.contains("returntokio::runtime::Builder::"), "{out}");
}

#[test]
fn a_trailing_comma_is_fine() {
    let args = quote! { flavor = "current_thread", };
    assert!(errors(Attribute::Main, args, quote! { async fn f() {} }).is_empty());
}
