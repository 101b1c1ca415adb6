import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { createNode, defaultSettings, resolveSettings, type PartialSettings } from '../../../src/node/index.ts'
import { BACKGROUND_RATES_MAX, checkNumbers, settingBounds } from '../../../src/node/setting-bounds.ts'
import { temporaryDirectory } from '../../support/files.ts'

const withValue = (section: string, name: string, value: unknown): void => { checkNumbers(resolveSettings({ [section]: { [name]: value } } as PartialSettings)) }

describe('settings of programs', () => {
  it('may be the defaults, and whatever lies within the bounds', () => {
    checkNumbers(defaultSettings)
    for (const [section, bounds] of Object.entries(settingBounds)) {
      for (const [name, { min, max }] of Object.entries(bounds)) for (const value of [min, max, undefined]) withValue(section, name, value)
    }
  })

  it('are refused outside of them, by name', () => {
    let checked = 0
    for (const [section, bounds] of Object.entries(settingBounds)) {
      for (const [name, { kind, min, max }] of Object.entries(bounds)) {
        const wrong = [min - 1, max + 1, NaN, Infinity, -Infinity, String(min), null, ...(kind === 'share' ? [] : [min + 0.5])]
        for (const value of wrong) assert.throws(() => { withValue(section, name, value) }, { name: 'ConfigError', message: new RegExp(`^${section}\\.${name} must be a .*number.*, not ${String(value)}$`) }, `${section}.${name} ${String(value)}`)
        checked++
      }
    }
    const numbers = Object.values(defaultSettings).flatMap(section => Object.values(section as object)).filter(value => typeof value === 'number')
    assert.ok(checked >= numbers.length, `${checked} of ${numbers.length}`)
  })

  it('may cap what nobody waits for by times of the day, in windows that make sense', () => {
    const window = { from: 0, to: 1_440, bytesPerSecond: 65_536 }
    const check = (...backgroundRates: Array<typeof window>): void => { checkNumbers(resolveSettings({ transfer: { backgroundRates } })) }
    check(window, { ...window, from: 1_320, to: 360 })
    for (const wrong of [{ from: -1 }, { to: 1_441 }, { from: 0.5 }, { to: 0 }, { bytesPerSecond: 1 }, { bytesPerSecond: NaN }]) {
      assert.throws(() => { check({ ...window, ...wrong }) }, { name: 'ConfigError', message: /^transfer\.backgroundRates / }, JSON.stringify(wrong))
    }
    assert.throws(() => { check(...Array.from({ length: BACKGROUND_RATES_MAX + 1 }, () => window)) }, { name: 'ConfigError' })
  })

  it('are looked at before a start leaves anything behind', async () => {
    await using root = await temporaryDirectory('settings')
    const dataDirectory = join(root.path, 'data')
    await assert.rejects(createNode({ dataDirectory, settings: { transfer: { peersMax: -3 } } }), { name: 'ConfigError', message: 'transfer.peersMax must be a whole number, 1 to 32, not -3' })
    assert.ok(!existsSync(dataDirectory))
  })
})
