import assert from 'node:assert/strict'
import type { IncomingMessage } from 'node:http'
import { guard, type GuardInit } from '../../../src/api/guard.ts'

describe('api: guard', () => {
  const ask = (host: string, init: GuardInit): void => { guard({ headers: { host }, socket: { localAddress: '::ffff:10.0.0.7' } } as unknown as IncomingMessage, init) }

  it('answers to loopback, to the hosts that are set, and where it is wanted to its own address', () => {
    for (const host of ['localhost', '127.0.0.1:8765', '[::1]:1', 'models.example', 'MODELS.example:80', '10.0.0.7:80']) ask(host, { hosts: ['Models.example'], ownAddress: true })
    assert.throws(() => { ask('10.0.0.7', {}) }, { name: 'HostNotAllowedError' })
  })

  it('lists each host it answers to once', () => {
    assert.throws(() => { ask('evil.example', { hosts: ['127.0.0.1', '10.0.0.7'], ownAddress: true }) }, {
      name: 'HostNotAllowedError', message: 'this daemon does not answer to the host "evil.example"; use one of localhost, 127.0.0.1, [::1], 10.0.0.7'
    })
  })
})
