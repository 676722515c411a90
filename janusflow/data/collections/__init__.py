"""Image collections from public packages: downloaded, unpacked safely, written as captioned
folders.
"""
