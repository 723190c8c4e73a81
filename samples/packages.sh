# Sourced, not run: what building needs from Debian 12/13 or Ubuntu 22.04/24.04, installed when it is not there.
#
#   ensure_packages build          what libdsv4, its plugins and the dsv4 tool need
#   ensure_packages build test     and what the tests need (ci: what they can do without and continuous integration not)
#
# Nothing missing: apt is not called. Something missing: apt-get as root, or through sudo. No apt or no rights: it says
# what to install and stops.

DSV4_PACKAGES_build="g++ cmake ninja-build pkg-config libboost-dev nlohmann-json3-dev libcli11-dev libpcre2-dev"
DSV4_PACKAGES_test="catch2 binutils python3 python3-jsonschema"
# Taken where the system has them; the build does without: a compiler cache, io_uring for experts on disk, oneDNN for the
# CPU backend's variant of that name, a compiler that shows that the backend compiles for another processor.
DSV4_OPTIONAL_build="ccache liburing-dev"
DSV4_OPTIONAL_test="libdnnl-dev g++-aarch64-linux-gnu"
# Half a gigabyte to see that the HIP plugin compiles.
DSV4_PACKAGES_ci=""
DSV4_OPTIONAL_ci="hipcc libamdhip64-dev rocm-device-libs"

# Programs count as there whatever package brought them.
package_present() {
    case $1 in
    g++) command -v c++ >/dev/null || command -v g++ >/dev/null ;;
    cmake | ccache | pkg-config | python3) command -v "$1" >/dev/null ;;
    ninja-build) command -v ninja >/dev/null ;;
    binutils) command -v readelf >/dev/null ;;
    abigail-tools) command -v abidiff >/dev/null ;;
    *) [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ] ;;
    esac
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    else
        sudo "$@"
    fi
}

ensure_packages() {
    local group package needed="" wanted="" list
    for group in "$@"; do
        list="DSV4_PACKAGES_$group"
        for package in ${!list}; do package_present "$package" || needed="$needed $package"; done
        list="DSV4_OPTIONAL_$group"
        for package in ${!list}; do package_present "$package" || wanted="$wanted $package"; done
    done
    if [ -z "$needed$wanted" ]; then return 0; fi
    if ! command -v apt-get >/dev/null; then
        if [ -z "$needed" ]; then return 0; fi
        echo "This system has no apt-get. Install what these Debian packages hold, then run this again:$needed" >&2
        return 1
    fi
    if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null; then
        if [ -z "$needed" ]; then return 0; fi
        echo "Neither root nor sudo. Have these packages installed, then run this again:$needed$wanted" >&2
        return 1
    fi
    echo "== Installing what is missing:$needed$wanted"
    local apt="apt-get -qq -o DPkg::Lock::Timeout=300"
    if ! as_root $apt update; then echo "apt-get update failed; trying with the lists that are there" >&2; fi
    for package in $wanted; do
        if apt-cache show "$package" >/dev/null 2>&1; then
            needed="$needed $package"
        else
            echo "-- this system has no $package; going on without it"
        fi
    done
    if [ -n "$needed" ]; then
        as_root env DEBIAN_FRONTEND=noninteractive $apt install -y --no-install-recommends $needed >/dev/null
    fi
}
