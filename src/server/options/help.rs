//! The texts of `--help` and `--help_tls`.

/// The usage.
pub(super) fn usage(executable: &str) -> String {
    format!(
        "
Usage: {executable} [options]

Server Options:
    -a, --addr, --net <host>         Address to listen on for clients (default: 0.0.0.0)
    -p, --port <port>                Port to listen on for clients (default: 4222, -1 for a random one)
    -n, --name
        --server_name <name>         Name of this server (default: its id)
    -P, --pid <file>                 Write the process id to this file
    -m, --http_port <port>           Serve monitoring over HTTP on this port
    -ms,--https_port <port>          Serve monitoring over HTTPS on this port
    -c, --config <file>              Read this configuration file
    -t                               Check the configuration file and exit
    -sl,--signal <signal>[=<pid>]    Signal a running server: ldm, stop, quit, term, reopen or reload
                                     <pid> is a process id or the path of a pid file
        --client_advertise <addr>    Address that other servers tell to clients
        --ports_file_dir <dir>       Write the bound ports to <dir>/<executable>_<pid>.ports

Logging Options:
    -l, --log <file>                 Log to this file
    -T, --logtime                    Begin log lines with the time (default: true)
        --logtime_utc                Show times in UTC (default: false)
    -s, --syslog                     Log to syslog
    -r, --remote_syslog <addr>       Log to the syslog at this address (udp://localhost:514)
    -D, --debug                      Log debug lines
    -V, --trace                      Log the protocol
    -VV                              Log the protocol, of the system account too
    -DV                              Debug and trace
    -DVV                             Debug and trace, of the system account too
        --log_size_limit <bytes>     Rotate the log file at this size (default: never)
        --max_traced_msg_len <len>   Show at most this much of a traced message (default: all)

JetStream Options:
    -js, --jetstream                 Turn JetStream on
    -sd, --store_dir <dir>           Keep its data in this directory

Authorization Options:
        --user <user>                Ask clients for this user
        --pass <password>            Ask clients for this password
        --auth <token>               Ask clients for this token

TLS Options:
        --tls                        Use TLS without asking clients for certificates
        --tlscert <file>             The server's certificate
        --tlskey <file>              The certificate's private key
        --tlsverify                  Use TLS and verify the clients' certificates
        --tlscacert <file>           Authorities to verify certificates with

Cluster Options:
        --routes <url, url>          Servers to connect to
        --cluster <url>              URL to listen on for other servers
        --cluster_listen <url>       The same
        --cluster_name <name>        Name of the cluster (default: agreed on by its members)
        --no_advertise <bool>        Do not tell clients about other members
        --cluster_advertise <addr>   Address that is told to other members
        --connect_retries <number>   Attempts to connect to a member that others told of

Profiling Options:
        --profile <port>             Serve profiles over HTTP on this port

Common Options:
    -h, --help                       Show this text
    -v, --version                    Show the version
        --help_tls                   Show how TLS is configured

"
    )
}

/// How TLS is configured.
pub(super) fn tls() -> String {
    "
TLS is configured in a tls block of the configuration file:

    tls {
        cert_file:      \"./certs/server-cert.pem\"
        key_file:       \"./certs/server-key.pem\"
        ca_file:        \"./certs/ca.pem\"
        verify:         true
        verify_and_map: true

        min_version: \"1.2\"
        cipher_suites: [
            \"TLS_AES_128_GCM_SHA256\",
            \"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256\"
        ]
        curve_preferences: [
            \"X25519\",
            \"CurveP256\"
        ]
    }

Cipher suites:
    TLS_AES_128_GCM_SHA256
    TLS_AES_256_GCM_SHA384
    TLS_CHACHA20_POLY1305_SHA256
    TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
    TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
    TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
    TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
    TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
    TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256

Curve preferences:
    X25519
    CurveP256
    CurveP384

"
    .to_string()
}
