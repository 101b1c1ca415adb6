import { homedir } from 'node:os'
import { join, resolve } from 'node:path'
import { ConfigError } from '../base/errors.ts'

type Environment = Record<string, string | undefined>

/** `sun_path` of a Unix socket address holds 108 bytes with the closing NUL (unix(7)). */
const SOCKET_PATH_BYTES_MAX = 107

/** $SHOAL_DATA, else the XDG data directory (specifications.freedesktop.org/basedir-spec). Absolute. */
export function defaultDataDirectory (env: Environment = process.env): string {
  if (isSet(env.SHOAL_DATA)) return resolve(env.SHOAL_DATA)
  // The specification says to ignore a relative one.
  if (isSet(env.XDG_DATA_HOME) && env.XDG_DATA_HOME.startsWith('/')) return join(env.XDG_DATA_HOME, 'shoal')
  return join(homedir(), '.local', 'share', 'shoal')
}

/** $SHOAL_API, else `api.sock` in the data directory. Absolute. */
export function defaultSocketPath (env: Environment = process.env, dataDirectory?: string): string {
  if (dataDirectory === undefined && isSet(env.SHOAL_API)) return resolve(env.SHOAL_API)
  return join(dataDirectory ?? defaultDataDirectory(env), 'api.sock')
}

/** Throws ConfigError when no Unix socket can have this path. */
export function checkSocketPath (path: string): void {
  const bytes = Buffer.byteLength(path)
  if (bytes > SOCKET_PATH_BYTES_MAX) {
    throw new ConfigError(`the socket path ${path} has ${bytes} bytes and a Unix socket's may have ${SOCKET_PATH_BYTES_MAX}; give a shorter one with --api`)
  }
  if (path.includes('\0')) throw new ConfigError('a socket path cannot hold a NUL')
}

function isSet (value: string | undefined): value is string {
  return value !== undefined && value !== ''
}
