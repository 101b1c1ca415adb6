"""One side of the libtorrent comparison.

`peer.py seed SETTINGS FILE TORRENT` writes TORRENT if it is not there and seeds FILE; prints {"port"}.
`peer.py load SETTINGS DIRECTORY` prints {"ready"}; a line {"torrent", "ports"} on stdin starts the download, and
{"done"} is printed when every piece is verified and handed to the file. SETTINGS is JSON laid over libtorrent's own.
"""
import json
import os
import sys
import libtorrent as lt


def say(message):
    print(json.dumps(message), flush=True)


def session(settings):
    return lt.session({"listen_interfaces": "127.0.0.1:0", "alert_mask": lt.alert.category_t.status_notification | lt.alert.category_t.error_notification | lt.alert.category_t.storage_notification, **settings})


def wait(one, wanted):
    while True:
        one.wait_for_alert(1000)
        for alert in one.pop_alerts():
            if isinstance(alert, wanted):
                return alert
            if isinstance(alert, (lt.torrent_error_alert, lt.file_error_alert, lt.listen_failed_alert)):
                sys.exit(alert.message())


def add(one, torrent, directory, flags):
    parameters = lt.add_torrent_params()
    parameters.ti = lt.torrent_info(torrent)
    parameters.save_path = directory
    parameters.flags = (parameters.flags | flags) & ~lt.torrent_flags.auto_managed & ~lt.torrent_flags.paused
    parameters.upload_limit = -1
    parameters.download_limit = -1
    parameters.max_uploads = -1
    return one.add_torrent(parameters)


role, settings, path = sys.argv[1:4]
one = session(json.loads(settings))
if role == "seed":
    torrent = sys.argv[4]
    if not os.path.exists(torrent):
        files = lt.file_storage()
        lt.add_files(files, path)
        made = lt.create_torrent(files, piece_size=4 * 1024 * 1024, flags=lt.create_torrent.v1_only)
        lt.set_piece_hashes(made, os.path.dirname(path))
        with open(torrent, "wb") as out:
            out.write(lt.bencode(made.generate()))
    add(one, torrent, os.path.dirname(path), lt.torrent_flags.seed_mode)
    while one.listen_port() == 0:
        one.wait_for_alert(100)
        one.pop_alerts()
    say({"port": one.listen_port()})
    sys.stdin.read()
else:
    say({"ready": True})
    task = json.loads(sys.stdin.readline())
    handle = add(one, task["torrent"], path, lt.torrent_flags.default_flags)
    for port in task["ports"]:
        handle.connect_peer(("127.0.0.1", port))
    wait(one, lt.torrent_finished_alert)
    handle.flush_cache()
    wait(one, lt.cache_flushed_alert)
    say({"done": True})
    sys.stdin.read()
