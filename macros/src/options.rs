//! The arguments of the attributes: `flavor = "..", worker_threads = N, crate = ".."`.
//!
//! Reading never stops at the first mistake. [`parse`] returns what it could make out together with
//! every error, so that one compilation shows them all and the function still expands to something
//! of the right shape; without that, each mistake would drag unrelated errors behind it.

use crate::expand::Attribute;
use proc_macro2::{Span, TokenStream};
use syn::ext::IdentExt;
use syn::parse::{ParseStream, Parser};
use syn::spanned::Spanned;
use syn::{Error, Expr, ExprLit, Ident, Lit, Path, Token};

/// What the arguments ask for.
pub(crate) struct Options {
    pub(crate) flavor: Flavor,
    /// `None`: gort is known by its own name.
    pub(crate) crate_path: Option<Path>,
}

/// Which scheduler runs the function.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Flavor {
    CurrentThread,
    MultiThread { worker_threads: Option<usize> },
}

/// The arguments as they are read; each may be given once.
#[derive(Default)]
struct Given {
    flavor: Option<FlavorName>,
    worker_threads: Option<(usize, Span)>,
    crate_path: Option<Path>,
}

#[derive(Clone, Copy, PartialEq)]
enum FlavorName {
    CurrentThread,
    MultiThread,
}

/// Reads the tokens between the attribute's parentheses.
pub(crate) fn parse(attribute: Attribute, args: TokenStream) -> (Options, Option<Error>) {
    let mut errors = Errors(None);
    let mut given = Given::default();
    let read = |input: ParseStream<'_>| {
        let mut seen = Vec::new();
        while !input.is_empty() {
            let arg = Argument::parse(attribute, input)?;
            if seen.contains(&arg.name) {
                errors.push(
                    arg.name.span(),
                    format!("`{}` is given twice; keep one of them", arg.name),
                );
            } else if let Err(error) = given.set(attribute, &arg) {
                errors.add(error);
            }
            seen.push(arg.name);
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(())
    };
    if let Err(error) = read.parse2(args) {
        errors.add(error);
    }
    let flavor = given.flavor(attribute, &mut errors);
    let crate_path = given.crate_path;
    (Options { flavor, crate_path }, errors.0)
}

/// One `name = value`.
struct Argument {
    name: Ident,
    value: Lit,
}

impl Argument {
    fn parse(attribute: Attribute, input: ParseStream<'_>) -> syn::Result<Self> {
        // Any identifier, because `crate` is a keyword.
        let name = Ident::parse_any(input).map_err(|error| {
            Error::new(
                error.span(),
                format!("expected an argument; {}", takes(attribute)),
            )
        })?;
        if !input.peek(Token![=]) {
            return Err(Error::new(
                name.span(),
                without_value(attribute, &name.to_string()),
            ));
        }
        input.parse::<Token![=]>()?;
        match input.parse::<Expr>()? {
            Expr::Lit(ExprLit { lit, .. }) => Ok(Self { name, value: lit }),
            other => Err(Error::new(
                other.span(),
                format!(
                    "`{name}` needs a literal: an attribute cannot evaluate expressions; use `gort::runtime::Builder` for values known at run time"
                ),
            )),
        }
    }
}

impl Given {
    fn set(&mut self, attribute: Attribute, arg: &Argument) -> syn::Result<()> {
        let error = |message: String| Err(Error::new(arg.name.span(), message));
        match arg.name.to_string().as_str() {
            "flavor" => self.flavor = Some(flavor_name(&arg.value)?),
            "worker_threads" => {
                self.worker_threads = Some((worker_threads(&arg.value)?, arg.name.span()))
            }
            "crate" => self.crate_path = Some(crate_path(&arg.value)?),
            later @ ("start_paused" | "unhandled_panic" | "name") => {
                return error(format!(
                    "`{later}` is not supported yet: gort will have it in a later version; remove it for now"
                ));
            }
            "core_threads" => return error("the argument is called `worker_threads`".into()),
            unknown => {
                return error(format!(
                    "unknown argument `{unknown}`; {}",
                    takes(attribute)
                ));
            }
        }
        Ok(())
    }

    fn flavor(&self, attribute: Attribute, errors: &mut Errors) -> Flavor {
        match (
            self.flavor.unwrap_or(attribute.default_flavor()),
            self.worker_threads,
        ) {
            (FlavorName::MultiThread, given) => Flavor::MultiThread {
                worker_threads: given.map(|(n, _)| n),
            },
            (FlavorName::CurrentThread, None) => Flavor::CurrentThread,
            (FlavorName::CurrentThread, Some((n, span))) => {
                // After another mistake the flavor may just be the one that could not be read.
                if errors.0.is_none() {
                    errors.push(
                        span,
                        format!(
                            "`worker_threads` needs the multi-thread scheduler: write `#[{attribute}(flavor = \"multi_thread\", worker_threads = {n})]`, or remove it"
                        ),
                    );
                }
                Flavor::CurrentThread
            }
        }
    }
}

impl Attribute {
    fn default_flavor(self) -> FlavorName {
        match self {
            Self::Main => FlavorName::MultiThread,
            // A test should run in the same order every time.
            Self::Test => FlavorName::CurrentThread,
        }
    }
}

fn flavor_name(value: &Lit) -> syn::Result<FlavorName> {
    let error = |message: String| Err(Error::new(value.span(), message));
    let Lit::Str(name) = value else {
        return error("`flavor` is a string: \"multi_thread\" or \"current_thread\"".into());
    };
    match name.value().as_str() {
        "multi_thread" => Ok(FlavorName::MultiThread),
        "current_thread" => Ok(FlavorName::CurrentThread),
        "single_thread" | "basic_scheduler" => error("this flavor is called \"current_thread\"".into()),
        "threaded_scheduler" => error("this flavor is called \"multi_thread\"".into()),
        "local" => error(
            "the flavor \"local\" is not supported yet: gort will have it in a later version; \"current_thread\" also runs everything on the calling thread"
                .into(),
        ),
        other => error(format!("unknown flavor \"{other}\"; it is \"multi_thread\" or \"current_thread\"")),
    }
}

fn worker_threads(value: &Lit) -> syn::Result<usize> {
    let error = |message: String| Err(Error::new(value.span(), message));
    let Lit::Int(number) = value else {
        return error("`worker_threads` is a number, as in `worker_threads = 2`".into());
    };
    match number.base10_parse::<usize>() {
        Ok(0) => error(
            "`worker_threads` is at least 1: without a worker no task would run; for none beside the calling thread write `flavor = \"current_thread\"`"
                .into(),
        ),
        Ok(n) => Ok(n),
        Err(cause) => error(format!("`worker_threads` is a number, as in `worker_threads = 2`: {cause}")),
    }
}

fn crate_path(value: &Lit) -> syn::Result<Path> {
    let error = |message: String| Err(Error::new(value.span(), message));
    let Lit::Str(path) = value else {
        return error("`crate` is a path in quotes, as in `crate = \"tokio\"`".into());
    };
    match path.parse_with(Path::parse_mod_style) {
        Ok(path) => Ok(path),
        Err(_) => error(format!(
            "`crate` is a path in quotes, as in `crate = \"tokio\"`: \"{}\" is none",
            path.value()
        )),
    }
}

fn takes(attribute: Attribute) -> String {
    format!("`#[{attribute}]` takes `flavor`, `worker_threads` and `crate`")
}

fn without_value(attribute: Attribute, name: &str) -> String {
    match name {
        "flavor" => {
            "`flavor` needs a value: `flavor = \"multi_thread\"` or `flavor = \"current_thread\"`"
                .into()
        }
        "worker_threads" => "`worker_threads` needs a value, as in `worker_threads = 2`".into(),
        "crate" => "`crate` needs a value, as in `crate = \"tokio\"`".into(),
        "multi_thread" | "threaded_scheduler" => "write `flavor = \"multi_thread\"`".into(),
        "current_thread" | "single_thread" | "basic_scheduler" => {
            "write `flavor = \"current_thread\"`".into()
        }
        "start_paused" | "unhandled_panic" | "name" => {
            format!(
                "`{name}` is not supported yet: gort will have it in a later version; remove it for now"
            )
        }
        unknown => format!("unknown argument `{unknown}`; {}", takes(attribute)),
    }
}

/// All mistakes found so far.
struct Errors(Option<Error>);

impl Errors {
    fn push(&mut self, span: Span, message: String) {
        self.add(Error::new(span, message));
    }

    fn add(&mut self, error: Error) {
        match &mut self.0 {
            Some(all) => all.combine(error),
            None => self.0 = Some(error),
        }
    }
}
