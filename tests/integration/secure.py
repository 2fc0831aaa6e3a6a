"""A broker that lets in only who has a login, and lets each do only what was granted."""

from __future__ import annotations

import datetime
import ipaddress
import warnings
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from stream_rec.events import Topic
from tests.integration.broker import Broker
from tests.integration.ground import Ground
from tests.integration.origins import Origin

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", r"(read|open)_text is deprecated", DeprecationWarning)
    from kafka import KafkaAdminClient
    from kafka.admin import ACL, ACLPermissionType, ResourcePattern, ResourceType
    from kafka.admin import ACLOperation as Operation

USER, PASSWORD, WRONG = "the-worker", "hunter2-and-more", "not-the-password"
INPUTS = (Topic.EVENTS, Topic.ITEMS, Topic.CONTROL)
OUTPUTS = (Topic.SLATES, Topic.VERSIONS, Topic.DEAD_LETTERS, Topic.LEDGER)
LOOKING = (Operation.READ, Operation.DESCRIBE, Operation.DESCRIBE_CONFIGS)
LISTENERS = ("PLAINTEXT", "SASL_PLAINTEXT", "SASL_SSL", "CONTROLLER")
PORTS = ("@PORT@", "@PROXY_PORT@", "@TARGET_PORT@", "@CONTROLLER_PORT@")
AT = ",".join(f"{name}://127.0.0.1:{port}" for name, port in zip(LISTENERS, PORTS, strict=True))
SCRAM = "scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;"
PROPERTIES = f"""
listeners={AT}
advertised.listeners={AT}
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.sasl_ssl.{SCRAM}
listener.name.sasl_plaintext.{SCRAM}
ssl.keystore.type=PEM
ssl.keystore.location=@DIR@/keystore.pem
"""
"""Whoever comes without a login, as the brokers themselves do, may do all; a login only what was granted to it."""
DAYS = 3


def secure_broker(origin: Origin, folder: Path) -> Broker:
    """A broker, not started yet, with one login; `folder/ca.pem` is what its clients must trust."""
    folder.mkdir(parents=True, exist_ok=True)
    write_certificates(folder)
    scram = f"--add-scram SCRAM-SHA-512=[name={USER},password={PASSWORD}]"
    return Broker(origin, folder, properties=PROPERTIES, format_args=scram, heap="256m")


def write_certificates(folder: Path) -> None:
    """`keystore.pem` for 127.0.0.1, and `ca.pem` that vouches for it."""
    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ca_name, name = (
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, who)]) for who in ("the tests' CA", "the tests' broker")
    )
    ca = _certificate(ca_name, ca_name, ca_key.public_key()).add_extension(x509.BasicConstraints(True, None), True)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    own = _certificate(name, ca_name, key.public_key()).add_extension(address, False)
    pem = serialization.Encoding.PEM
    (folder / "ca.pem").write_bytes(ca.sign(ca_key, hashes.SHA256()).public_bytes(pem))
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "keystore.pem").write_bytes(secret + own.sign(ca_key, hashes.SHA256()).public_bytes(pem))


def _certificate(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=DAYS))
    )


class Secured:
    """A pipeline on the secure broker: its topics are made by somebody who may do all.

    Args:
        broker: started.
        prefix: of all names.
        folder: where run folders and logs go.
    """

    def __init__(self, broker: Broker, prefix: str, folder: Path) -> None:
        self.broker, self.prefix, self.folder = broker, prefix, folder
        self.owner = Ground(broker.bootstrap, prefix, folder)
        self.owner.create_topics()
        self._made = [self.owner]

    def ground(self, protocol: str, *sets: str, user: str = USER, trusting: bool = True) -> Ground:
        """The same pipeline for one who comes with a login; the password is still to be given.

        `trusting`: whether the broker's certificate is vouched for.
        """
        port = {"SASL_SSL": self.broker.target_port, "SASL_PLAINTEXT": self.broker.proxy_port}[protocol]
        login = [f"kafka.security_protocol={protocol}", f"kafka.sasl_username={user}"]
        login += [f"kafka.ssl_cafile={self.broker.folder / 'ca.pem'}"] * (protocol == "SASL_SSL" and trusting)
        made = Ground(f"127.0.0.1:{port}", self.prefix, self.folder, *login, "kafka.connect_timeout_ms=3000", *sets)
        self._made.append(made)
        return made

    def grant(self, *without: str) -> None:
        """Let the login do what the README says that a worker needs, but for some topics or `transactional id`."""
        wanted = {(ResourceType.TOPIC, self.owner.name(t)): LOOKING for t in INPUTS if t not in without}
        wanted |= {
            (ResourceType.TOPIC, self.owner.name(t)): (*LOOKING, Operation.WRITE) for t in OUTPUTS if t not in without
        }
        if "transactional id" not in without:
            wanted[ResourceType.TRANSACTIONAL_ID, self.prefix] = (Operation.WRITE, Operation.DESCRIBE)
        self._allow((kind, name, operation) for (kind, name), operations in wanted.items() for operation in operations)

    def allow(self, topic: str, *operations: Operation) -> None:
        """Let the login do something with one of the pipeline's topics."""
        self.allow_named(self.owner.name(topic), *operations)

    def allow_named(self, name: str, *operations: Operation) -> None:
        """Let the login do something with a topic of the cluster."""
        self._allow((ResourceType.TOPIC, name, operation) for operation in operations)

    def _allow(self, wanted: Iterable[tuple[ResourceType, str, Operation]]) -> None:
        with closing(KafkaAdminClient(bootstrap_servers=self.broker.bootstrap)) as admin:
            admin.create_acls(
                [
                    ACL(f"User:{USER}", "*", operation, ACLPermissionType.ALLOW, ResourcePattern(kind, name))
                    for kind, name, operation in wanted
                ]
            )

    def close(self) -> None:
        """End what still runs."""
        for ground in self._made:
            ground.close()
