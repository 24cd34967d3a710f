#!/bin/sh
# A step of a release pipeline: announce that a version is live, signed with the deployer's key.
#
#   UNSHIP_LOG           the log, kafka://HOST:PORT or embedded:DIR
#   UNSHIP_DEPLOYER_KEY  the content of deployer.key, from the pipeline's store of secrets
#   UNSHIP_TRUST         the trust.json of the installation, which is no secret: it names the audience
#   sh release.sh MODEL VERSION [PREVIOUS]
set -eu

[ $# -ge 2 ] || { echo "release.sh: expected MODEL VERSION [PREVIOUS]" >&2; exit 2; }
model=$1 version=$2 previous=${3:-}
# A folder that only this user can enter, gone at the end: the key is on disk for as long as it takes to sign.
keys=$(mktemp -d)
trap 'rm -rf "$keys"' EXIT
umask 077
printf '%s\n' "$UNSHIP_DEPLOYER_KEY" > "$keys/deployer.key"
cp "$UNSHIP_TRUST" "$keys/trust.json"
# The installed command is `unship-replica`.
${UNSHIP_REPLICA:-unship-replica} emit --keys "$keys" deployment "{\"model\":\"$model\",\"version\":\"$version\",\
\"status\":\"live\"${previous:+,\"previous\":\"$previous\"}}"
echo "$model: $version was announced as live"
