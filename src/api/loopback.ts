/** Hosts that only this machine can reach. */
const LOOPBACK = ['127.0.0.1', '::1', 'localhost']

export function isLoopback (host: string): boolean {
  return LOOPBACK.includes(host)
}
