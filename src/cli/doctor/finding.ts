/** One line of `shoal doctor`. */
export interface Finding {
  check: Check
  level: 'ok' | 'warn' | 'fail'
  /** What was found, with its figures. */
  message: string
  /** What to do, when it is not ok. */
  fix?: string
}

export type Check = 'daemon' | 'versions' | 'clock' | 'limits' | 'memory' | 'ports' | 'disk' | 'permissions' | 'peers'

export const ok = (check: Check, message: string): Finding => ({ check, level: 'ok', message })
export const warn = (check: Check, message: string, fix: string): Finding => ({ check, level: 'warn', message, fix })
export const fail = (check: Check, message: string, fix: string): Finding => ({ check, level: 'fail', message, fix })
