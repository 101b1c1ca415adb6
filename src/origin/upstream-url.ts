import { ConfigError } from '../base/index.ts'

/** Throws ConfigError unless it is the address of an upstream: no user, no query. Without a slash at its end. */
export function upstreamUrl (text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined
  const isPlain = url !== undefined && ['http:', 'https:'].includes(url.protocol) && [url.username, url.password, url.search, url.hash].every(part => part === '')
  if (!isPlain) throw new ConfigError('hf.upstream must be an address such as https://huggingface.co, without user or query')
  return url.href.replace(/\/+$/, '')
}
