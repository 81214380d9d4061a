//! `#[derive(Module)]`: visits the parameters and buffers of a struct's fields by dotted name.

use proc_macro::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Fields, LitStr, parse_macro_input};

/// Implements `Module` for a struct: every field is visited under its own name.
///
/// `#[module(skip)]` leaves a field out (a type that is no module, cloned in deep copies); `#[module(rename = "attn")]`
/// visits it under another name; `#[module(flatten)]` visits it without a name of its own.
///
/// The generated code names the trait `Module` that is in scope, so it works with `binade_nn::Module` and with the
/// facade's prelude alike.
#[proc_macro_derive(Module, attributes(module))]
pub fn derive_module(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    expand(&input).unwrap_or_else(|e| e.to_compile_error()).into()
}

fn expand(input: &DeriveInput) -> syn::Result<proc_macro2::TokenStream> {
    let Data::Struct(data) = &input.data else {
        return Err(syn::Error::new_spanned(&input.ident, "Module can be derived for structs only"));
    };
    let fields = match &data.fields {
        Fields::Named(fields) => fields.named.iter().collect::<Vec<_>>(),
        Fields::Unnamed(fields) => fields.unnamed.iter().collect(),
        Fields::Unit => Vec::new(),
    };
    let (mut visits, mut copies) = (Vec::new(), Vec::new());
    for (index, field) in fields.iter().enumerate() {
        let (mut name, mut skip, mut flatten) = (None, false, false);
        for attribute in field.attrs.iter().filter(|a| a.path().is_ident("module")) {
            attribute.parse_nested_meta(|meta| {
                if meta.path.is_ident("skip") {
                    skip = true;
                } else if meta.path.is_ident("flatten") {
                    flatten = true;
                } else if meta.path.is_ident("rename") {
                    name = Some(meta.value()?.parse::<LitStr>()?.value());
                } else {
                    return Err(meta.error("expected `skip`, `flatten` or `rename = \"name\"`"));
                }
                Ok(())
            })?;
        }
        let place = syn::Index::from(index);
        let member = field.ident.as_ref().map_or_else(|| quote!(#place), |ident| quote!(#ident));
        if skip {
            copies.push(quote!(#member: ::core::clone::Clone::clone(&self.#member)));
            continue;
        }
        copies.push(quote!(#member: Module::copy_with(&self.#member, visitor)));
        let own = field
            .ident
            .as_ref()
            .map_or_else(|| index.to_string(), |ident| ident.to_string().trim_start_matches("r#").to_string());
        let name = name.unwrap_or(own);
        visits.push(if flatten {
            quote!(Module::walk(&self.#member, visitor);)
        } else {
            quote!(visitor.field(#name, &self.#member);)
        });
    }
    let name = &input.ident;
    let (generics, types, conditions) = input.generics.split_for_impl();
    Ok(quote! {
        #[automatically_derived]
        impl #generics Module for #name #types #conditions {
            fn visit(&self, visitor: &mut Visitor<'_>) {
                #(#visits)*
            }

            fn copy_with(&self, visitor: &Visitor<'_>) -> Self {
                Self { #(#copies),* }
            }
        }
    })
}
