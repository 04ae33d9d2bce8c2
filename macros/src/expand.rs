//! The function: what the attributes read and what they write.
//!
//! The body is kept as tokens and never parsed: its mistakes are the compiler's to explain, at the
//! place where they are. Only what surrounds it is ours.

use crate::options::{self, Flavor, Options};
use proc_macro2::{Delimiter, Group, Literal, Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use std::fmt;
use syn::parse::{Parse, ParseStream, Parser};
use syn::spanned::Spanned;
use syn::{AttrStyle, Error, Meta, ReturnType, Signature, Type, Visibility};

/// Which attribute is being expanded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Attribute {
    Main,
    Test,
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Main => "gort::main",
            Self::Test => "gort::test",
        })
    }
}

/// Expands `item` under `attribute`. Errors come beside a function of the right shape, so that they
/// are the only ones the user sees.
pub(crate) fn attribute(attribute: Attribute, args: TokenStream, item: TokenStream) -> TokenStream {
    let function = match Function::parse.parse2(item.clone()) {
        Ok(function) => function,
        Err(cause) => {
            let message = format!("`#[{attribute}]` belongs on an `async fn`: {cause}");
            let error = Error::new(cause.span(), message).into_compile_error();
            return quote! { #item #error };
        }
    };
    let (options, bad_options) = options::parse(attribute, args);
    let errors = [function.misuse(attribute).err(), bad_options];
    let errors = errors.into_iter().flatten().map(Error::into_compile_error);
    let errors = TokenStream::from_iter(errors);
    let function = function.write(attribute, &options);
    quote! { #errors #function }
}

/// The annotated function, its body unparsed.
struct Function {
    attrs: Vec<syn::Attribute>,
    vis: Visibility,
    sig: Signature,
    body: TokenStream,
    /// Of the body's braces: mismatched types of a body without a tail are reported there.
    braces: Span,
}

impl Parse for Function {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let mut attrs = input.call(syn::Attribute::parse_outer)?;
        let vis = input.parse()?;
        let sig = input.parse()?;
        let group: Group = input.parse()?;
        if group.delimiter() != Delimiter::Brace {
            return Err(Error::new(
                group.span(),
                "expected the body of the function",
            ));
        }
        let read_body = |input: ParseStream<'_>| {
            Ok((
                input.call(syn::Attribute::parse_inner)?,
                input.parse::<TokenStream>()?,
            ))
        };
        let (inner, body) = read_body.parse2(group.stream())?;
        // A block takes no inner attributes; on the function they mean the same.
        attrs.extend(inner.into_iter().map(|attr| syn::Attribute {
            style: AttrStyle::Outer,
            ..attr
        }));
        Ok(Self {
            attrs,
            vis,
            sig,
            body,
            braces: group.span(),
        })
    }
}

impl Function {
    /// What the attribute cannot work with.
    fn misuse(&self, attribute: Attribute) -> syn::Result<()> {
        let Signature {
            ident,
            inputs,
            fn_token,
            ..
        } = &self.sig;
        if self.sig.asyncness.is_none() {
            let message = format!("`#[{attribute}]` needs an `async fn`: write `async fn {ident}`");
            return Err(Error::new(fn_token.span, message));
        }
        if attribute == Attribute::Main && ident == "main" && !inputs.is_empty() {
            let message = "`main` takes no arguments; read the command line with `std::env::args`";
            return Err(Error::new(inputs.span(), message));
        }
        if attribute == Attribute::Test {
            if let Some(attr) = self.attrs.iter().find(|attr| is_std_test(attr)) {
                let message =
                    format!("`#[{attribute}]` already makes this a test; remove `#[test]`");
                return Err(Error::new(attr.span(), message));
            }
        }
        Ok(())
    }

    fn write(mut self, attribute: Attribute, options: &Options) -> TokenStream {
        self.sig.asyncness = None;
        let Self {
            attrs, vis, sig, ..
        } = &self;
        // After the user's attributes: some of them look for a `#[test]` that follows.
        let test = (attribute == Attribute::Test).then(|| quote! { #[::core::prelude::v1::test] });
        let runtime = build_runtime(options);
        let future = self.future(attribute);
        // The `return` makes a body that never ends, such as `loop {}`, compile without warnings
        // about the expression it leaves behind.
        quote! {
            #(#attrs)*
            #test
            #vis #sig {
                #[allow(clippy::expect_used, clippy::needless_return, clippy::diverging_sub_expression)]
                {
                    return #runtime.block_on(#future);
                }
            }
        }
    }

    /// The body as a future.
    fn future(&self, attribute: Attribute) -> TokenStream {
        let (declared, body) = (self.declare_output(), &self.body);
        let mut block = Group::new(Delimiter::Brace, quote! { #declared #body });
        block.set_span(self.braces);
        match attribute {
            Attribute::Main => quote! { async #block },
            // Through a trait object, so that a thousand tests are not a thousand copies of
            // `block_on`.
            Attribute::Test => quote! {
                ::core::pin::pin!(async #block)
                    as ::core::pin::Pin<&mut dyn ::core::future::Future<Output = _>>
            },
        }
    }

    /// A statement that tells the compiler the type of the async block, which has no place for it:
    /// the first `return` decides. It makes `?`, coercions and messages those of a plain function.
    fn declare_output(&self) -> TokenStream {
        let (output, span) = match &self.sig.output {
            ReturnType::Default => (quote! { () }, self.braces),
            // `!` has no values to return, and `impl Trait` cannot be named.
            ReturnType::Type(_, ty) if matches!(**ty, Type::Never(_)) => return TokenStream::new(),
            ReturnType::Type(_, ty) if mentions_impl(ty.to_token_stream()) => {
                return TokenStream::new();
            }
            ReturnType::Type(_, ty) => (ty.to_token_stream(), ty.span()),
        };
        // Our tokens, located at the user's type: a message points there, a lint knows better.
        let span = Span::mixed_site().located_at(span);
        quote_spanned! {span=>
            if false {
                return ::core::option::Option::<#output>::unwrap(::core::option::Option::None);
            }
        }
    }
}

/// `Builder` calls up to the runtime itself.
fn build_runtime(options: &Options) -> TokenStream {
    let gort = match &options.crate_path {
        Some(path) => path.to_token_stream(),
        None => quote! { gort },
    };
    let builder = match options.flavor {
        Flavor::CurrentThread => quote! { new_current_thread() },
        Flavor::MultiThread {
            worker_threads: None,
        } => quote! { new_multi_thread() },
        Flavor::MultiThread {
            worker_threads: Some(n),
        } => {
            let n = Literal::usize_unsuffixed(n);
            quote! { new_multi_thread().worker_threads(#n) }
        }
    };
    quote! {
        #gort::runtime::Builder::#builder
            .enable_all()
            .build()
            .expect("cannot build the gort runtime")
    }
}

/// Whether this is the standard `#[test]`, short or by its full path.
fn is_std_test(attr: &syn::Attribute) -> bool {
    let Meta::Path(path) = &attr.meta else {
        return false;
    };
    let names: Vec<String> = path
        .segments
        .iter()
        .map(|segment| segment.ident.to_string())
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    matches!(names[..], ["test"] | ["core" | "std", "prelude", _, "test"])
}

fn mentions_impl(tokens: TokenStream) -> bool {
    tokens.into_iter().any(|token| match token {
        proc_macro2::TokenTree::Ident(ident) => ident == "impl",
        proc_macro2::TokenTree::Group(group) => mentions_impl(group.stream()),
        _ => false,
    })
}

#[cfg(test)]
mod tests;
